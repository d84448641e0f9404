//! What is written and where: results to standard output, progress and failures to standard error; colour and
//! progress only on a terminal (and no colour with `NO_COLOR`); JSON instead of all that with `--json`.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use berth_wire::terminal::{Colours, harmless};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use console::style;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;

use crate::failure::{Exit, Failure};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    json: bool,
    progress: bool,
}

/// One column of a table.
pub type Column = (&'static str, CellAlignment);

/// A column of text.
pub const fn left(title: &'static str) -> Column {
    (title, CellAlignment::Left)
}

/// A column of numbers.
pub const fn right(title: &'static str) -> Column {
    (title, CellAlignment::Right)
}

impl Screen {
    /// With `--json` or without.
    pub fn new(json: bool) -> Self {
        Self { json, progress: !json && io::stderr().is_terminal() }
    }

    /// Whether the answer is to be JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line for people; nothing with `--json`. On a terminal it can do no more than set colours; elsewhere it is as it
    /// is, so that a value in it can be used.
    pub fn line(&self, text: impl AsRef<str>) {
        if self.json {
            return;
        }
        let text = text.as_ref();
        if io::stdout().is_terminal() {
            write(&harmless(text, Colours::Keep), "\n");
        } else {
            write(text, "\n");
        }
    }

    /// A line that an app or a build wrote: it can set colours on a terminal, and nothing anywhere.
    pub fn output_line(&self, text: &str) {
        if !self.json {
            let colours = if io::stdout().is_terminal() { Colours::Keep } else { Colours::Drop };
            write(&harmless(text, colours), "\n");
        }
    }

    /// Text that is the same with and without `--json`: log lines, a page.
    pub fn raw(&self, text: impl AsRef<str>) {
        write(text.as_ref(), "");
    }

    /// Something worth knowing that is not the result.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.json {
            eprintln!("{} {}", style("note:").for_stderr().yellow(), on_stderr(text.as_ref()));
        }
    }

    /// The whole answer, with `--json`; `for_people` without.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn answer<T: Serialize + ?Sized>(
        &self,
        value: &T,
        for_people: impl FnOnce(&Self),
    ) -> Result<(), Failure> {
        if self.json {
            let text = serde_json::to_string_pretty(value).map_err(|e| Failure::local("writing JSON", e))?;
            write(&json_harmless(&text), "\n");
        } else {
            for_people(self);
        }
        Ok(())
    }

    /// A list: as JSON, as `empty` if there is nothing in it, or as a table with one row for each. `row` is told what time
    /// it is.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn list<T: Serialize>(
        &self,
        items: &[T],
        empty: impl AsRef<str>,
        columns: &[Column],
        row: impl Fn(&T, Timestamp) -> Vec<String>,
    ) -> Result<(), Failure> {
        self.answer(items, |screen| {
            if items.is_empty() {
                return screen.line(empty);
            }
            let now = Timestamp::now();
            screen.table(columns, items.iter().map(|item| row(item, now)));
        })
    }

    /// A table without borders. It is not folded to the terminal's width: a line that can be cut with other
    /// tools is worth more than one that fits.
    pub fn table(&self, columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|(title, _)| *title));
        for row in rows {
            table.add_row(row);
        }
        for (column, (_, alignment)) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2)).set_cell_alignment(*alignment);
        }
        for line in table.lines() {
            self.line(line.trim_end());
        }
    }

    /// Something that takes a while. It disappears when dropped.
    pub fn spinner(&self, message: impl Into<String>) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner().with_message(message.into());
        spinner.enable_steady_tick(TICK);
        spinner
    }

    /// A transfer of a known number of bytes.
    pub fn transfer(&self, bytes: u64, message: impl Into<String>) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(bytes).with_message(message.into());
        if let Ok(style) = ProgressStyle::with_template(
            "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        ) {
            bar.set_style(style);
        }
        bar
    }

    /// A failure: code, sentence, last log lines, and where to read on. A JSON object with `--json`.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            let object = serde_json::json!({
                "code": failure.code,
                "title": failure.code.map(berth_wire::code::Code::title),
                "detail": failure.message,
                "log_tail": failure.log_tail,
                "exit_status": failure.exit as u8,
            });
            eprintln!("{}", json_harmless(&object.to_string()));
            return;
        }
        let message = on_stderr(&failure.message);
        let red = |text: &str| style(text.to_owned()).for_stderr().red().bold();
        match failure.code {
            Some(code) => eprintln!("{} {code} {}\n  {}", red("error:"), code.title(), message),
            None => eprintln!("{} {}", red("error:"), message),
        }
        if !failure.log_tail.is_empty() {
            eprintln!("The last lines it wrote:");
            for line in &failure.log_tail {
                eprintln!("  {}", on_stderr(line));
            }
        }
        match failure.code {
            Some(code) => eprintln!("What to do: berth explain {code}"),
            None if failure.exit == Exit::Usage => {
                eprintln!("Usage: berth --help, or --help after a command")
            }
            None => {}
        }
    }
}

/// Text on standard error, where what it says may be a stranger's.
fn on_stderr(text: &str) -> Cow<'_, str> {
    harmless(text, if io::stderr().is_terminal() { Colours::Keep } else { Colours::Drop })
}

/// JSON in which the controls that it allows in strings (RFC 8259 7), and some terminals obey, are escaped as well.
pub fn json_harmless(text: &str) -> Cow<'_, str> {
    let bare = |c: char| matches!(c, '\u{7f}'..='\u{9f}');
    if !text.contains(bare) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        if bare(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
        escaped
    });
    Cow::Owned(escaped)
}

/// A reader that went away (`berth logs | head`) is no failure: there is nobody left to tell.
fn write(text: &str, end: &str) {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes()));
    if written.and_then(|()| out.flush()).is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        std::process::exit(0);
    }
}

/// A serde unit variant as words: `backing_off` as `backing off`.
pub fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

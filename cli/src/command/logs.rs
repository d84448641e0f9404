//! `berth logs`: the last lines and, with `-f`, every new one until Ctrl-C.

use std::time::{Duration, Instant};

use berth_wire::log::{LogLine, LogSource};
use berth_wire::session::LOG_LINES_MAX;
use console::style;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use reqwest::{Method, RequestBuilder};

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::screen::{Screen, json_harmless};
use crate::session::Session;

/// A JSON line is a [`LogLine`]: its text, at worst six bytes a character (`\u0000`), and a little around it.
const LINE_BYTES_MAX: usize = 6 * LogLine::TEXT_BYTES_MAX + 1_000;

/// How many of the last lines are asked for after a break: what a busy app writes in the seconds of a restart.
const AGAIN_LINES: u32 = 1_000;
/// A control plane that restarts is away for a moment; longer is a failure.
const UNREACHABLE_MAX: Duration = Duration::from_secs(60);
/// Pause before asking again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Go on with every new line until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines
    #[arg(short, long, default_value_t = 100, value_name = "LINES",
          value_parser = clap::value_parser!(u32).range(0..=i64::from(LOG_LINES_MAX)))]
    number: u32,
    /// Only this process type or instance, web or web.1, or only requests: router
    #[arg(short, long, value_name = "NAME")]
    process: Option<String>,
}

/// Runs it. A followed log survives a control plane that restarts: lines that were written meanwhile are asked for again.
///
/// # Errors
/// As the API has it, or the connection breaks and does not come back.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    let (app, client) = (session.app()?, session.client()?);
    let mut tail = Tail { screen: session.screen, last: None };
    let mut number = arguments.number;
    let mut heard = Instant::now();
    loop {
        let request = client.request(Method::GET, &format!("/v1/apps/{app}/logs"))?;
        let mut query = vec![("n", number.to_string()), ("follow", arguments.follow.to_string())];
        query.extend(arguments.process.iter().map(|process| ("process", process.clone())));
        match tail.read(&client, request.query(&query), &mut heard).await {
            Ok(()) if !arguments.follow => return Ok(()),
            Ok(()) => {}
            Err(failure) if arguments.follow && failure.exit == Exit::Unreachable && tail.last.is_some() => {
                if heard.elapsed() > UNREACHABLE_MAX {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
        number = AGAIN_LINES;
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// What was shown so far.
struct Tail<'a> {
    screen: &'a Screen,
    /// The stamp of the newest line shown; none before the first.
    last: Option<Timestamp>,
}

impl Tail<'_> {
    /// Shows the lines of one answer until it ends.
    async fn read(
        &mut self,
        client: &Client,
        request: RequestBuilder,
        heard: &mut Instant,
    ) -> Result<(), Failure> {
        let mut pieces = client.send(request).await?.bytes_stream();
        *heard = Instant::now();
        let shown = self.last;
        let mut lines = Lines::default();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| client.unreachable(&error))?;
            *heard = Instant::now();
            lines.push(&piece)?;
            while let Some(line) = lines.next_line() {
                self.show(&line, shown)?;
            }
        }
        Ok(())
    }

    /// Shows one line unless it is from before `shown`, when an earlier connection had it.
    fn show(&mut self, text: &str, shown: Option<Timestamp>) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        let line: LogLine = serde_json::from_str(text)
            .map_err(|e| Failure::new(Exit::Failed, format!("a log line could not be read: {e}")))?;
        if shown.is_some_and(|shown| line.at <= shown) {
            return Ok(());
        }
        self.last = self.last.max(Some(line.at));
        if self.screen.is_json() {
            self.screen.raw(format!("{}\n", json_harmless(text)));
        } else {
            self.screen.output_line(&coloured(&line));
        }
        Ok(())
    }
}

/// Stamp and process in the source's colour; the text itself is left as it was written (but see [`berth_wire::terminal`]).
fn coloured(line: &LogLine) -> String {
    let text = line.to_string();
    let (head, rest) = text.split_at(text.len() - line.text.len());
    let head = match line.source {
        LogSource::App => style(head).cyan(),
        LogSource::Berth => style(head).magenta(),
        LogSource::Router => style(head).green(),
    };
    format!("{head}{rest}")
}

/// Puts lines together from pieces that end anywhere, also within a character.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    start: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() > LINE_BYTES_MAX {
            return Err(Failure::new(
                Exit::Failed,
                "the control plane sent a log line longer than a line can be",
            ));
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    fn next_line(&mut self) -> Option<String> {
        let end = self.buffer[self.start..].iter().position(|&byte| byte == b'\n')? + self.start;
        let line = String::from_utf8_lossy(&self.buffer[self.start..end]).into_owned();
        self.start = end + 1;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_must_survive_any_cut() {
        let text = "ä1\n\nlonger ü line\nlast\n";
        for cut in 1..text.len() {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for piece in text.as_bytes().chunks(cut) {
                lines.push(piece).unwrap();
                got.extend(std::iter::from_fn(|| lines.next_line()));
            }
            assert_eq!(got, ["ä1", "", "longer ü line", "last"], "cut every {cut}");
        }
    }

    #[test]
    fn a_line_without_end_must_be_given_up() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; LINE_BYTES_MAX + 1];
        lines.push(&piece).unwrap();
        assert!(lines.push(b"x").is_err());
    }
}

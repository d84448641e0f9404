//! `berth logs`: the last lines and, with `-f`, every new one until Ctrl-C.

use berth_wire::log::{LogLine, LogSource};
use berth_wire::session::LOG_LINES_MAX;
use console::style;
use futures_util::StreamExt as _;
use reqwest::Method;

use crate::failure::{Exit, Failure};
use crate::screen::Screen;
use crate::session::Session;

/// A JSON line is a [`LogLine`]: its text, at worst six bytes a character (`\u0000`), and a little around it.
const LINE_BYTES_MAX: usize = 6 * LogLine::TEXT_BYTES_MAX + 1_000;

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
    /// Only this process type or instance: web or web.1
    #[arg(short, long, value_name = "NAME")]
    process: Option<String>,
}

/// Runs it.
///
/// # Errors
/// As the API has it, or the connection breaks.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    let (app, client) = (session.app()?, session.client()?);
    let mut request = client.request(Method::GET, &format!("/v1/apps/{app}/logs"))?;
    request = request.query(&[("n", arguments.number.to_string()), ("follow", arguments.follow.to_string())]);
    if let Some(process) = &arguments.process {
        request = request.query(&[("process", process)]);
    }
    let mut pieces = client.send(request).await?.bytes_stream();
    let mut lines = Lines::default();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| client.unreachable(&error))?;
        lines.push(&piece)?;
        while let Some(line) = lines.next_line() {
            print(session.screen, &line)?;
        }
    }
    Ok(())
}

fn print(screen: &Screen, line: &str) -> Result<(), Failure> {
    if line.is_empty() {
        return Ok(());
    }
    if screen.is_json() {
        screen.raw(format!("{line}\n"));
        return Ok(());
    }
    let line: LogLine = serde_json::from_str(line)
        .map_err(|e| Failure::new(Exit::Failed, format!("a log line could not be read: {e}")))?;
    let text = line.to_string();
    // Where stamp and process end; the text itself is left as it was written.
    let head = text.len() - line.text.len();
    let colour = match line.source {
        LogSource::App => style(&text[..head]).cyan(),
        LogSource::Berth => style(&text[..head]).magenta(),
        LogSource::Router => style(&text[..head]).green(),
    };
    screen.line(format!("{colour}{}", &text[head..]));
    Ok(())
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

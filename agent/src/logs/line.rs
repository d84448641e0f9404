//! From a log file's bytes to lines. Pure.

use berth_wire::log::{LogLine, LogSource};
use jiff::Timestamp;

/// One line of a file: when the launcher read it, and what it says, at most [`LogLine::TEXT_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// When.
    pub at: Timestamp,
    /// What.
    pub text: String,
}

impl Stamped {
    /// As a line of the app's log.
    pub fn into_line(self, process: &str) -> LogLine {
        LogLine { at: self.at, source: LogSource::App, process: process.to_owned(), text: self.text }
    }
}

/// Parses one line without its newline. Several come back where it was too long for one; none where it has no stamp.
pub fn parse(line: &[u8]) -> Vec<Stamped> {
    let Some(space) = line.iter().position(|&b| b == b' ') else { return Vec::new() };
    let stamp = std::str::from_utf8(&line[..space]).ok().and_then(|s| s.parse::<i64>().ok());
    let Some(at) = stamp.and_then(|us| Timestamp::from_microsecond(us).ok()) else { return Vec::new() };
    let text = String::from_utf8_lossy(shown(&line[space + 1..]));
    split(&text).into_iter().map(|text| Stamped { at, text: text.to_owned() }).collect()
}

/// What a terminal would show in the end: a progress bar writes many states over each other with carriage returns.
fn shown(text: &[u8]) -> &[u8] {
    text.split(|&b| b == b'\r').rfind(|part| !part.is_empty()).unwrap_or_default()
}

/// Cuts at character boundaries into parts of at most [`LogLine::TEXT_BYTES_MAX`].
fn split(mut text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    while text.len() > LogLine::TEXT_BYTES_MAX {
        let (part, rest) = text.split_at(text.floor_char_boundary(LogLine::TEXT_BYTES_MAX));
        parts.push(part);
        text = rest;
    }
    parts.push(text);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &[u8]) -> Vec<String> {
        parse(line).into_iter().map(|s| s.text).collect()
    }

    #[test]
    fn a_stamped_line_must_keep_its_microseconds_and_its_spaces() {
        let line = &parse(b"1764000000123456  two  spaces ")[0];
        assert_eq!(line.at.as_microsecond(), 1_764_000_000_123_456);
        assert_eq!(line.text, " two  spaces ");
    }

    #[test]
    fn carriage_returns_must_leave_what_a_terminal_would_show() {
        assert_eq!(texts(b"1 text\r"), ["text"]);
        assert_eq!(texts(b"1 10%\r50%\r100%"), ["100%"]);
        assert_eq!(texts(b"1 \r"), [""]);
    }

    #[test]
    fn bytes_that_are_not_utf8_must_be_replaced() {
        assert_eq!(texts(b"1 a\xff\xfeb"), ["a\u{fffd}\u{fffd}b"]);
    }

    #[test]
    fn a_long_line_must_be_cut_at_characters_and_lose_nothing() {
        let long = "ä".repeat(LogLine::TEXT_BYTES_MAX);
        let parts = texts(format!("1 {long}").as_bytes());
        assert!(parts.iter().all(|p| p.len() <= LogLine::TEXT_BYTES_MAX));
        assert_eq!(parts.concat(), long);
    }

    #[test]
    fn a_line_without_a_stamp_must_be_left_out() {
        for bad in [&b""[..], b"text", b"x text", b"99999999999999999999 text"] {
            assert!(parse(bad).is_empty());
        }
    }
}

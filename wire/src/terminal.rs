//! How text that a stranger wrote may be shown: what it may do to a terminal (set colours, at most), and output cut into
//! lines wherever it was split on its way. A log line holds whatever a visitor of the app sent, a build's output whatever
//! a dependency prints; escape sequences in them could retitle the window, fill the clipboard or type an answer.

use std::borrow::Cow;

const ESCAPE: char = '\u{1b}';
const RESET: &str = "\u{1b}[0m";

/// Longest piece of output kept while its line has not ended: as the launcher's for instances.
const LINE_BYTES_MAX: usize = 16 << 10;

/// What becomes of whole colour sequences (SGR, ECMA-48 8.3.117).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// They stay and are undone at the end: for what is a terminal.
    Keep,
    /// They go: for what is none, or may be none.
    Drop,
}

/// The text with every control character in caret notation, but for line ends, tabs and, if they are kept, colours.
pub fn harmless(text: &str, colours: Colours) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + RESET.len());
    let mut coloured = false;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = colour_length(rest).unwrap_or(next.len_utf8());
        let (piece, after) = rest.split_at(length);
        rest = after;
        match next {
            ESCAPE if length > 1 && colours == Colours::Drop => {}
            ESCAPE if length > 1 => {
                coloured = piece != RESET;
                shown.push_str(piece);
            }
            next if is_control(next) => caret(next, &mut shown),
            _ => shown.push_str(piece),
        }
    }
    if coloured {
        shown.push_str(RESET);
    }
    Cow::Owned(shown)
}

fn is_control(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

/// The length of the colour sequence that the text starts with.
fn colour_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

/// `^[` for escape, as `cat -v` writes it; C1 controls (ECMA-48 5.3), which some terminals obey, as `\u{9b}`.
fn caret(control: char, shown: &mut String) {
    match u8::try_from(control) {
        Ok(ascii @ (0..=0x1f | 0x7f)) => shown.extend(['^', char::from(ascii ^ 0x40)]),
        _ => shown.extend(control.escape_unicode()),
    }
}

/// Output cut into lines. Of a line that was overwritten with carriage returns (a progress bar) only the last form is
/// kept. What is not UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub struct OutputLines {
    partial: Vec<u8>,
}

impl OutputLines {
    /// Takes a piece that may begin and end anywhere, also within a character; gives the lines that are now whole.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(part);
            if self.partial.ends_with(b"\n") || self.partial.len() > LINE_BYTES_MAX {
                whole.extend(self.rest());
            }
        }
        whole
    }

    /// What is left when no more will come.
    pub fn rest(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        Some(text.rsplit('\r').next().unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_must_set_colours_and_nothing_else() {
        let kept = |text| harmless(text, Colours::Keep).into_owned();
        assert_eq!(kept("plain\tå\n"), "plain\tå\n");
        assert_eq!(kept("\u{1b}[1;31mred"), "\u{1b}[1;31mred\u{1b}[0m");
        assert_eq!(kept("\u{1b}[31mred\u{1b}[0m"), "\u{1b}[31mred\u{1b}[0m");
        assert_eq!(kept("\u{1b}]0;title\u{7}\u{1b}[2J"), "^[]0;title^G^[[2J");
        assert_eq!(kept("a\rb\u{7f}\u{9b}2J\u{1b}[3"), "a^Mb^?\\u{9b}2J^[[3");
    }

    #[test]
    fn without_a_terminal_colours_must_go_and_the_rest_be_seen() {
        let dropped = |text| harmless(text, Colours::Drop).into_owned();
        assert_eq!(dropped("\u{1b}[1;31mred\u{1b}[0m"), "red");
        assert_eq!(dropped("\u{1b}]52;c;ZXZpbA==\u{7}"), "^[]52;c;ZXZpbA==^G");
        // What is left of one sequence when another is taken out of it must not be a sequence.
        assert_eq!(dropped("\u{1b}\u{1b}[0m[2J"), "^[[2J");
    }

    proptest! {
        #[test]
        fn no_control_must_be_left_but_of_colours(text in "[\\x00-\\x7f\\u{80}-\\u{ff}m;\\[]{0,40}") {
            let shown = harmless(&text, Colours::Keep).into_owned();
            for (at, _) in shown.match_indices(is_control) {
                prop_assert!(colour_length(&shown[at..]).is_some(), "{:?}", shown);
            }
            prop_assert!(!harmless(&text, Colours::Drop).chars().any(is_control));
        }
    }

    #[test]
    fn output_must_be_cut_into_lines_wherever_it_was_split() {
        let mut lines = OutputLines::default();
        assert_eq!(lines.feed(b"-----> Py"), Vec::<String>::new());
        assert_eq!(lines.feed(b"thon\n\n10%\r50%\r100%\nrest"), ["-----> Python", "", "100%"]);
        assert_eq!(lines.rest().as_deref(), Some("rest"));
        assert_eq!(lines.rest(), None);
        assert_eq!(lines.feed(b"a\r\n"), ["a"]);
        let text = "ä\u{1b}]52;c;eA==\u{7}\n".as_bytes();
        for cut in 1..text.len() {
            let mut lines = OutputLines::default();
            let got: Vec<_> = text.chunks(cut).flat_map(|piece| lines.feed(piece)).collect();
            assert_eq!(got, ["ä\u{1b}]52;c;eA==\u{7}"], "cut every {cut}");
        }
    }

    #[test]
    fn a_line_without_end_must_be_cut() {
        assert_eq!(OutputLines::default().feed(&vec![b'x'; LINE_BYTES_MAX + 1]).len(), 1);
    }
}

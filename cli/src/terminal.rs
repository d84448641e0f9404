//! What a stranger's text may do to the terminal it is shown on: set colours, and no more. A log line holds whatever a
//! visitor of the app sent; escape sequences in it could retitle the window, clear the screen or type an answer.

use std::borrow::Cow;

const ESCAPE: char = '\u{1b}';
const RESET: &str = "\u{1b}[0m";

/// The text with every control character in caret notation, but for line ends, tabs and whole colour sequences (SGR,
/// ECMA-48 8.3.117), which are undone at the end.
pub fn harmless(text: &str) -> Cow<'_, str> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_log_line_must_set_colours_and_nothing_else() {
        assert_eq!(harmless("plain\tå\n"), "plain\tå\n");
        assert_eq!(harmless("\u{1b}[1;31mred"), "\u{1b}[1;31mred\u{1b}[0m");
        assert_eq!(harmless("\u{1b}[31mred\u{1b}[0m"), "\u{1b}[31mred\u{1b}[0m");
        assert_eq!(harmless("\u{1b}]0;title\u{7}\u{1b}[2J"), "^[]0;title^G^[[2J");
        assert_eq!(harmless("a\rb\u{7f}\u{9b}2J\u{1b}[3"), "a^Mb^?\\u{9b}2J^[[3");
    }

    proptest! {
        #[test]
        fn no_control_must_be_left_but_of_colours(text in "[\\x00-\\x7f\\u{80}-\\u{ff}m;\\[]{0,40}") {
            let shown = harmless(&text).into_owned();
            for (at, _) in shown.match_indices(is_control) {
                prop_assert!(colour_length(&shown[at..]).is_some(), "{:?}", shown);
            }
        }
    }
}

//! Just enough of Rust's lexical structure (The Rust Reference, Lexical structure) to tell code from comments, literals
//! and tests. Blanked text keeps every newline and its length, so that positions stay.

/// The text with comments and the insides of string and character literals replaced by blanks.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (end, keep) = token(bytes, at);
        if !keep {
            for byte in &mut out[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at = end;
    }
    String::from_utf8(out).unwrap_or_default()
}

/// The string literals with where each begins: what is between the quotes, escapes as written.
pub fn strings(text: &str) -> Vec<(usize, &str)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (end, keep) = token(bytes, at);
        let literal = &bytes[at..end];
        if !keep && (literal.contains(&b'"')) && !literal.starts_with(b"/") && !literal.starts_with(b"'") {
            let inside = text[at..end].trim_start_matches(['b', 'r', 'c', '#']).trim_end_matches('#');
            found.push((at, inside.trim_matches('"')));
        }
        at = end;
    }
    found
}

/// Where the token that begins here ends, and whether it is code. Anything that is no comment or literal is taken byte by
/// byte, words whole.
fn token(bytes: &[u8], at: usize) -> (usize, bool) {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return (at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with(b"/*") {
        return (at + comment(rest), false);
    }
    let prefix = rest.iter().take_while(|b| matches!(b, b'b' | b'r' | b'c')).count();
    if prefix <= 2 {
        let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
        let quoted = rest.get(prefix + hashes) == Some(&b'"');
        let raw = rest[..prefix].contains(&b'r');
        if quoted && (raw || hashes == 0) {
            return (at + string(rest, prefix + hashes + 1, raw.then_some(hashes)), false);
        }
    }
    if rest[0] == b'\'' {
        return character(rest).map_or((at + 1, true), |length| (at + length, false));
    }
    let word = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_' || **b >= 0x80).count();
    (at + word.max(1), true)
}

/// The length of a block comment; they nest.
fn comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

/// The length of a string literal whose inside begins at `start`; `hashes` if it is raw.
fn string(rest: &[u8], start: usize, hashes: Option<usize>) -> usize {
    let mut at = start;
    while at < rest.len() {
        match (rest[at], hashes) {
            (b'\\', None) => at += 2,
            (b'"', hashes) => {
                let hashes = hashes.unwrap_or(0);
                let closing = rest[at + 1..].iter().take(hashes).filter(|&&b| b == b'#').count();
                if closing == hashes {
                    return at + 1 + hashes;
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal; none if this is a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.get(3..)?.iter().take(12).position(|&b| b == b'\'')?;
        return Some(close + 4);
    }
    // At most four bytes of UTF-8 between the quotes, and 'a' is a literal where 'a alone is a lifetime.
    let close = rest.get(2..)?.iter().take(4).position(|&b| b == b'\'')?;
    let inside = std::str::from_utf8(&rest[1..close + 2]).ok()?;
    (inside.chars().count() == 1).then_some(close + 3)
}

/// Blanked code without the items under `#[cfg(test)]` and `#[test]`.
pub fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for attribute in ["#[cfg(test)]", "#[test]", "#[tokio::test"] {
        for (at, _) in code.match_indices(attribute) {
            let body = code[at..].find(['{', ';']).map(|open| at + open);
            let Some(open) = body else { continue };
            let end = if code.as_bytes()[open] == b'{' { close_of(code, open) } else { open + 1 };
            for byte in &mut out[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Just past the brace that closes the one at `open`, in blanked code.
pub fn close_of(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_and_literals_must_be_blanked_and_code_kept() {
    for (text, want) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x\"y", 1)"#, "f(      , 1)"),
        ("r#\"a\"b\"# + c", "         + c"),
        ("'x' 'a: &'a str '\\n' '\\u{1f}'", "    'a: &'a str              "),
        ("var_b\"", "var_b "),
    ] {
        assert_eq!(blank(text), want, "{text}");
    }
}

#[test]
fn strings_must_be_found_without_their_quotes() {
    let found: Vec<_> = strings("f(\"a b\", r#\"c\"#, 'x') // \"no\"").into_iter().map(|(_, s)| s).collect();
    assert_eq!(found, ["a b", "c"]);
}

#[test]
fn tests_must_be_taken_out_of_code() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}\n#[cfg(test)]\nmod d;\n";
    let left = without_tests(code);
    assert!(
        left.contains("fn a") && left.contains("fn c") && !left.contains("fn b") && !left.contains("mod d")
    );
}

//! Reads a `.env` file: `KEY=value` lines, `#` comments, `export ` before a key, single quotes (literal) and
//! double quotes (with `\n`, `\"`, `\\`, `\$`, over several lines). Nothing is expanded and nothing is run.

use std::collections::BTreeMap;

use berth_wire::name::ConfigKey;

/// Parses a whole file.
///
/// # Errors
/// A sentence with the line's number.
pub fn parse(text: &str) -> Result<BTreeMap<ConfigKey, String>, String> {
    let mut vars = BTreeMap::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |what: String| format!("line {}: {what}", number + 1);
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (key, rest) = line.split_once('=').ok_or_else(|| at(format!("{line:?} is not KEY=value")))?;
        let key: ConfigKey = key.trim().parse().map_err(|e| at(format!("{e}")))?;
        let mut rest = rest.trim().to_owned();
        let value = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => loop {
                match unquote(&rest, quote) {
                    Some(value) => break value,
                    None => {
                        let (_, more) = lines
                            .next()
                            .ok_or_else(|| at(format!("the value of {key} has no closing {quote}")))?;
                        rest.push('\n');
                        rest.push_str(more);
                    }
                }
            },
            _ => rest.split(" #").next().unwrap_or_default().trim_end().to_owned(),
        };
        vars.insert(key, value);
    }
    Ok(vars)
}

/// The text between the quotes; none if the closing one is missing.
fn unquote(text: &str, quote: char) -> Option<String> {
    let mut value = String::new();
    let mut characters = text.chars().skip(1);
    while let Some(c) = characters.next() {
        match c {
            c if c == quote => return Some(value),
            '\\' if quote == '"' => match characters.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &[(&str, &str)]) {
        let got = parse(text).unwrap();
        let got: Vec<_> = got.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn the_usual_forms_must_be_read() {
        check("A=1\n\n# c\nexport B = two words # c\n", &[("A", "1"), ("B", "two words")]);
        check("A='a $B \\n'\nB=\"x\\ny\\\"z\"", &[("A", "a $B \\n"), ("B", "x\ny\"z")]);
        check("KEY=\"-----BEGIN\nabc\n-----END\"\nZ=", &[("KEY", "-----BEGIN\nabc\n-----END"), ("Z", "")]);
        check("URL=postgres://u:p@h/db?a=b#c", &[("URL", "postgres://u:p@h/db?a=b#c")]);
    }

    #[test]
    fn a_bad_line_must_be_named_by_its_number() {
        assert!(parse("A=1\nnonsense").unwrap_err().starts_with("line 2"));
        assert!(parse("1A=1").unwrap_err().contains("config var"));
        assert!(parse("A=\"open").unwrap_err().contains("closing"));
    }
}

//! The Procfile: which process types an app has. Pure; reading the file and running its commands happen elsewhere.

use std::collections::BTreeMap;

use berth_wire::name::ProcessType;

/// Most process types of one app: each may become instances, and a page of them is more than anybody has.
const PROCESSES_MAX: usize = 50;

/// A line that is not `NAME: COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Procfile line {line}: {problem}")]
pub struct Malformed {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it and how it should look.
    pub problem: String,
}

/// Reads a Procfile. Empty lines and lines that start with `#` say nothing; every other one is `NAME: COMMAND`.
///
/// # Errors
/// The first line that is something else, a name that is no process type, or one that occurs twice.
pub fn parse(text: &[u8]) -> Result<BTreeMap<ProcessType, String>, Malformed> {
    let mut processes = BTreeMap::new();
    for (number, raw) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = number + 1;
        let malformed = |problem: String| Malformed { line, problem };
        let raw = std::str::from_utf8(raw).map_err(|_| malformed("it is not UTF-8 text".to_owned()))?;
        let content = raw.trim_start_matches('\u{feff}').trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let shown: String = content.chars().take(60).collect();
        let Some((name, command)) = content.split_once(':') else {
            return Err(malformed(format!(
                "{shown:?} has no colon; write NAME: COMMAND, e.g. web: gunicorn app:app"
            )));
        };
        let (name, command) = (name.trim_end(), command.trim());
        let name: ProcessType = name.parse().map_err(|error| malformed(format!("{error}")))?;
        if command.is_empty() {
            return Err(malformed(format!("{name} has no command; write {name}: COMMAND")));
        }
        if command.contains('\0') {
            return Err(malformed(format!("the command of {name} has a zero byte")));
        }
        if processes.len() == PROCESSES_MAX {
            return Err(malformed(format!("there are more than {PROCESSES_MAX} process types")));
        }
        if processes.insert(name.clone(), command.to_owned()).is_some() {
            return Err(malformed(format!("{name} is there twice; give each process type one line")));
        }
    }
    Ok(processes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap().into_iter().map(|(name, command)| (name.into(), command)).collect()
    }

    #[test]
    fn process_types_must_be_read_with_their_commands_as_written() {
        let text = "\u{feff}web: gunicorn app:app --bind 0.0.0.0:$PORT\r\n\r\n# jobs\nworker:  rq worker -u \"$REDIS_URL\"\nrelease: ./manage.py migrate";
        assert_eq!(
            commands(text),
            [
                ("release".into(), "./manage.py migrate".into()),
                ("web".into(), "gunicorn app:app --bind 0.0.0.0:$PORT".into()),
                ("worker".into(), "rq worker -u \"$REDIS_URL\"".into()),
            ]
        );
    }

    #[test]
    fn a_malformed_line_must_be_named_by_its_number() {
        for (text, line, part) in [
            ("web: a\nworker", 2, "no colon"),
            ("\n\nweb:", 3, "no command"),
            ("Web: a", 1, "a-z"),
            ("web: a\nweb: b", 2, "twice"),
            (": a", 1, "process type"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{text:?}");
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(parse(b"web: a\n\xff\xfe: b").unwrap_err().line, 2);
    }

    #[test]
    fn an_empty_procfile_must_give_no_process_type() {
        assert!(parse(b"\n# nothing\n").unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_text_must_be_able_to_panic_the_parser(text in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&text);
        }
    }
}

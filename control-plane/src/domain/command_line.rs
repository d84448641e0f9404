//! A Procfile's line as an argument vector. It is the app's own shell text, run by the image's `/bin/sh` inside the container;
//! nothing of it is run on a host. Pure.
//!
//! A shell that waits for the app would be the main process: it would get SIGTERM, end, and take the app with it before the
//! app could drain. So the line's last command replaces the shell (`exec`) wherever that changes nothing else.

/// Words that begin a shell construct or a builtin without a program of its own: `exec` before one fails or means something else.
const NOT_PROGRAMS: &[&str] = &[
    "exec", "exit", "cd", "export", "set", "unset", "eval", "source", ".", ":", "trap", "wait", "ulimit",
    "umask", "alias", "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case",
    "esac", "{", "}", "!", "time", "function", "return", "read", "shift",
];

/// The argument vector that runs the line.
pub fn argv(line: &str) -> Vec<String> {
    let text = match last_command(line) {
        Some(at) if is_program(&line[at..]) => {
            let command = line[at..].trim_start();
            format!("{}exec {command}", &line[..line.len() - command.len()])
        }
        _ => line.to_owned(),
    };
    vec!["/bin/sh".to_owned(), "-c".to_owned(), text]
}

/// The line that an argument vector of [`argv`] was made from, for people.
pub fn line(argv: &[String]) -> String {
    let text = argv.last().map_or("", String::as_str);
    let command = last_command(text).map_or(text, |at| text[at..].trim_start());
    let before = &text[..text.len() - command.len()];
    format!("{before}{}", command.strip_prefix("exec ").unwrap_or(command))
}

/// Where the last command of a list of `;` and `&&` starts; none if the line is more than such a list.
fn last_command(line: &str) -> Option<usize> {
    let (mut quote, mut depth, mut start) = (None::<char>, 0_u32, 0);
    let mut characters = line.char_indices().peekable();
    let mut before = ' ';
    while let Some((at, character)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        match (quote, character) {
            (Some('\''), '\'') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => drop(characters.next()),
            (Some('"'), '"') => quote = None,
            (_, '`' | '\n') => return None,
            (_, '(') if before == '$' || depth > 0 => depth += 1,
            (_, ')') if depth > 0 => depth -= 1,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            _ if depth > 0 => {}
            (None, '(' | ')' | '|' | '#') => return None,
            (None, ';') => start = at + 1,
            (None, '&') if next == Some('&') => start = characters.next()?.0 + 1,
            (None, '&') if before != '>' && before != '<' => return None,
            _ => {}
        }
        before = character;
    }
    (quote.is_none() && depth == 0).then_some(start)
}

fn is_program(command: &str) -> bool {
    command.split_whitespace().next().is_some_and(|word| !word.contains('=') && !NOT_PROGRAMS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str) -> String {
        argv(line).pop().unwrap()
    }

    #[test]
    fn the_last_command_must_replace_the_shell() {
        for (line, wanted) in [
            ("gunicorn app:app", "exec gunicorn app:app"),
            (
                "gunicorn -w $(nproc) --bind 0.0.0.0:${PORT:-5000} app:app",
                "exec gunicorn -w $(nproc) --bind 0.0.0.0:${PORT:-5000} app:app",
            ),
            ("cd web && npm start", "cd web && exec npm start"),
            ("echo 'a; b'; node x.js 2>&1", "echo 'a; b'; exec node x.js 2>&1"),
            ("python -c \"import sys; sys.exit(3)\"", "exec python -c \"import sys; sys.exit(3)\""),
        ] {
            assert_eq!(text(line), wanted);
            assert_eq!(super::line(&argv(line)), line);
        }
    }

    #[test]
    fn what_exec_would_change_must_stay_as_it_is() {
        for line in [
            "echo migrating; exit 4",
            "FOO=1 node x.js",
            "a | b",
            "a || b",
            "a & b",
            "(a; b)",
            "a # b",
            "exec a",
            "if a; then b; fi",
            "a\nb",
            "echo 'open",
            "",
            "node x.js;",
        ] {
            assert_eq!(text(line), line);
        }
    }
}

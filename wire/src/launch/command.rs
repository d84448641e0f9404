//! What is executed: argument vector and environment, as bytes that the launcher's child reads in place. They may hold
//! secrets, so they travel in a memfd of their own and the launcher itself never looks at them.
//!
//! Layout: three little-endian u32 (number of candidates, of arguments, of environment entries), then that many
//! NUL-terminated strings in that order. A candidate is a path that is tried with execve, first to last.

/// Most bytes of a command: what the kernel takes of arguments and environment together under the default stack limit
/// of 8 MiB (execve(2): a quarter of it).
pub const COMMAND_BYTES_MAX: usize = 2 * 1024 * 1024;

/// An encoded command.
#[derive(Clone, PartialEq, Eq)]
pub struct Command(Vec<u8>);

/// Why something cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommand {
    /// There is nothing to execute.
    #[error("the command is empty; give at least the program")]
    Empty,
    /// A NUL byte, which no argument or variable can hold.
    #[error("{0} contains a NUL byte; remove it")]
    Nul(&'static str),
    /// Larger than the kernel takes.
    #[error(
        "arguments and environment take {0} bytes together, more than {COMMAND_BYTES_MAX}; make them smaller"
    )]
    TooLarge(usize),
}

impl Command {
    /// Encodes a command. A program without `/` is looked for along `PATH` of `env`.
    ///
    /// # Errors
    /// Nothing to execute, a NUL byte, or too much.
    pub fn new<'a>(
        argv: &[String],
        env: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, InvalidCommand> {
        let program = argv.first().filter(|program| !program.is_empty()).ok_or(InvalidCommand::Empty)?;
        let env: Vec<_> = env.into_iter().collect();
        let candidates =
            candidates(program, env.iter().find(|(key, _)| *key == "PATH").map(|(_, path)| path.as_str()));
        let entries: Vec<String> = env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut bytes = Vec::new();
        for count in [candidates.len(), argv.len(), entries.len()] {
            bytes.extend((count as u32).to_le_bytes());
        }
        for (what, strings) in [
            ("the command", candidates.as_slice()),
            ("an argument", argv),
            ("a variable of the environment", &entries),
        ] {
            for string in strings {
                if string.contains('\0') {
                    return Err(InvalidCommand::Nul(what));
                }
                bytes.extend(string.as_bytes());
                bytes.push(0);
            }
        }
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(InvalidCommand::TooLarge(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// The bytes, to be written to a file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a shell would try: the program itself if it has a slash, else each directory of PATH.
fn candidates(program: &str, path: Option<&str>) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{directory}/{program}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(argv: &[&str], env: &[(&str, &str)]) -> Result<Command, InvalidCommand> {
        let argv: Vec<String> = argv.iter().map(|s| (*s).to_owned()).collect();
        let env: Vec<(String, String)> =
            env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Command::new(&argv, env.iter().map(|(k, v)| (k, v)))
    }

    #[test]
    fn a_program_without_slash_must_be_looked_for_along_path() {
        let command = encode(&["sh", "-c", "true"], &[("PATH", "/a:relative:/b"), ("X", "1")]).unwrap();
        let mut expected = Vec::new();
        for count in [2u32, 3, 2] {
            expected.extend(count.to_le_bytes());
        }
        expected.extend(b"/a/sh\0/b/sh\0sh\0-c\0true\0PATH=/a:relative:/b\0X=1\0");
        assert_eq!(command.as_bytes(), expected);
    }

    #[test]
    fn what_cannot_be_executed_must_be_refused() {
        assert_eq!(encode(&[], &[]).err(), Some(InvalidCommand::Empty));
        assert_eq!(encode(&[""], &[]).err(), Some(InvalidCommand::Empty));
        assert_eq!(encode(&["/a", "b\0c"], &[]).err(), Some(InvalidCommand::Nul("an argument")));
        let large = "x".repeat(COMMAND_BYTES_MAX);
        assert!(matches!(encode(&["/a", &large], &[]), Err(InvalidCommand::TooLarge(_))));
    }
}

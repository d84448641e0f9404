//! How a command fails: an exit status for scripts, and a code, a sentence and log lines for people.
//! How that is shown is in [`crate::screen`].

use std::process::ExitCode;

use berth_wire::api::Problem;
use berth_wire::code::Code;
use berth_wire::report::Trouble;

/// Exit statuses. They are documented in `berth --help` and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did not work, for a reason that is none of the others.
    Failed = 1,
    /// It was asked for wrongly. clap uses 2 as well.
    Usage = 2,
    /// The control plane could not be reached.
    Unreachable = 3,
    /// Not signed in, or not allowed.
    Refused = 4,
    /// There is no such thing.
    NotFound = 5,
    /// The build failed or the release did not come up.
    ReleaseFailed = 6,
    /// A command was to be attached to, and it is Berth that failed: every lower status may be the command's own.
    Attached = 125,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Exit status.
    pub exit: Exit,
    /// Another exit status, where the command that was attached to is to blame.
    pub status: Option<u8>,
    /// Something to look up, where there is.
    pub code: Option<Code>,
    /// What was tried, on what, and what to do.
    pub message: String,
    /// Last log lines, where there are some.
    pub log_tail: Vec<String>,
}

impl Failure {
    /// Without a code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, status: None, code: None, message: message.into(), log_tail: Vec::new() }
    }

    /// A command line that cannot be.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something on this machine that did not work: what was tried, and the system's reason.
    pub fn local(tried: impl Into<String>, error: impl std::fmt::Display) -> Self {
        Self::new(Exit::Failed, format!("{}: {error}", tried.into()))
    }

    /// The same with a code.
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }

    /// The same with a status of the command's.
    pub fn with_status(mut self, status: u8) -> Self {
        self.status = Some(status);
        self
    }

    /// The same while a command was to be attached to.
    pub fn attached(mut self) -> Self {
        self.exit = Exit::Attached;
        self
    }

    /// What to exit with.
    pub fn exit_code(&self) -> ExitCode {
        self.status.map_or_else(|| self.exit.into(), ExitCode::from)
    }

    /// A build or release that failed.
    pub fn release(what: &str, trouble: Option<Trouble>) -> Self {
        let mut failure = Self::new(Exit::ReleaseFailed, what);
        if let Some(trouble) = trouble {
            failure.code = Some(trouble.code);
            failure.message = format!("{what}: {}", trouble.message);
            failure.log_tail = trouble.log_tail;
        }
        failure
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = match problem.status {
            401 | 403 => Exit::Refused,
            404 => Exit::NotFound,
            _ => Exit::Failed,
        };
        Self {
            exit,
            status: None,
            code: Some(problem.code),
            message: problem.detail,
            log_tail: problem.log_tail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_must_keep_its_code_and_choose_the_exit_status() {
        for (status, exit) in [(401, Exit::Refused), (404, Exit::NotFound), (409, Exit::Failed)] {
            let failure = Failure::from(Problem {
                kind: "urn:berth:error:A12".into(),
                title: "Not found".into(),
                status,
                code: Code::A12,
                detail: "There is no app shop.".into(),
                log_tail: vec![],
            });
            assert_eq!((failure.exit, failure.code), (exit, Some(Code::A12)));
        }
    }
}

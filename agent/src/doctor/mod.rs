//! What the machine lacks, for `berth-agent doctor` and the report's warnings: each check is one finding with a sentence
//! that says what is, what is lost and what to do. Looks only; changes nothing. One file per subject.

mod kernel;
mod limits;
mod network;
mod programs;

use std::fmt;
use std::fs;
use std::path::Path;

use berth_wire::code::Code;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Good,
    /// Berth works with something lost.
    Warning,
    /// Berth cannot work.
    Fatal,
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, a few words.
    pub subject: &'static str,
    /// How bad.
    pub severity: Severity,
    /// One sentence: what is, what is lost, what to do.
    pub sentence: String,
    /// Where there is something to look up.
    pub code: Option<Code>,
}

impl Finding {
    fn good(subject: &'static str, sentence: impl Into<String>) -> Self {
        Self { subject, severity: Severity::Good, sentence: sentence.into(), code: None }
    }

    fn warning(subject: &'static str, code: Code, sentence: impl Into<String>) -> Self {
        Self { subject, severity: Severity::Warning, sentence: sentence.into(), code: Some(code) }
    }

    fn fatal(subject: &'static str, code: Code, sentence: impl Into<String>) -> Self {
        Self { severity: Severity::Fatal, ..Self::warning(subject, code, sentence) }
    }
}

impl fmt::Display for Finding {
    /// One line: `warn  D17  inotify instances: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Good => "ok",
            Severity::Warning => "warn",
            Severity::Fatal => "FAIL",
        };
        let code = self.code.map_or("", Code::as_str);
        write!(f, "{severity:<4}  {code:<3}  {}: {}", self.subject, self.sentence)
    }
}

/// Looks at the machine: every check, the bad ones not first but in the order in which they should be seen to.
pub fn checks() -> Vec<Finding> {
    let mut findings = vec![kernel::root()];
    findings.extend(kernel::checks());
    findings.extend(programs::checks());
    findings.extend(limits::checks());
    findings.extend(network::checks());
    findings
}

/// A file's content without the newline at its end; nothing if it cannot be read.
fn content(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_good_must_have_a_code_and_a_sentence() {
        let findings = checks();
        assert!(findings.len() > 10);
        for finding in findings {
            assert_eq!(finding.code.is_none(), finding.severity == Severity::Good, "{finding}");
            assert!(!finding.sentence.is_empty() && !finding.sentence.ends_with('.'), "{finding}");
        }
    }

    #[test]
    fn a_finding_must_be_one_line() {
        let finding = Finding::warning("inotify instances", Code::D17, "128 is low");
        assert_eq!(finding.to_string(), "warn  D17  inotify instances: 128 is low");
    }
}

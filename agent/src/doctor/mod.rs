//! What the machine lacks. Skeleton of the names; filled next.

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

/// Looks at the machine; changes nothing.
pub fn checks() -> Vec<Finding> {
    Vec::new()
}

//! What must break a rule, and why. This list may only shrink: mend the file rather than adding to it.

/// One file that may break one rule.
pub struct Exception {
    /// The rule's name.
    pub rule: &'static str,
    /// The file.
    pub path: &'static str,
    /// Why it must.
    pub reason: &'static str,
}

/// All of them.
pub const EXCEPTIONS: &[Exception] = &[Exception {
    rule: "kernel",
    path: "agent/src/metrics/process.rs",
    reason: "asks about the agent's own process (page size, limit of open files) and changes nothing",
}];

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
pub const EXCEPTIONS: &[Exception] = &[];

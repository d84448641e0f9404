//! Errors as bodies.

use serde::{Deserialize, Serialize};

use crate::code::Code;

/// An error's body, `application/problem+json` (RFC 9457 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:berth:error:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's title.
    pub title: String,
    /// The HTTP status, again.
    pub status: u16,
    /// The stable code.
    pub code: Code,
    /// What was tried, on what, and what to do.
    pub detail: String,
    /// Last log lines, where there are some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

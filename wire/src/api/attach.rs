//! Commands that people run: one-offs, and commands inside an instance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::QuotaChange;
use crate::attach::TerminalSize;
use crate::name::ConfigKey;

/// Most bytes of a command's arguments, and of the variables given with it.
pub const ARGUMENT_BYTES_MAX: usize = 128 * 1024;

/// A one-off: `POST /v1/apps/{app}/run`. Without `detach` the request must ask to be upgraded to [`crate::attach::PROTOCOL`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RunRequest {
    /// The argument vector. A single argument is a line for the image's shell, as in a Procfile.
    pub argv: Vec<String>,
    /// Variables beside the app's own.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub env: BTreeMap<ConfigKey, String>,
    /// Do not attach: what it writes goes into the app's log, and it goes on when nobody is connected.
    pub detach: bool,
    /// A terminal of this size; pipes if none.
    pub terminal: Option<TerminalSize>,
    /// What differs from the quota of `web`.
    pub quota: QuotaChange,
}

/// A command inside an instance: `POST /v1/apps/{app}/exec`, upgraded to [`crate::attach::PROTOCOL`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExecRequest {
    /// `web.1`, or a process type; without it the first running `web`, else the first that runs.
    pub instance: Option<String>,
    /// The argument vector.
    pub argv: Vec<String>,
    /// Variables beside the instance's own.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub env: BTreeMap<ConfigKey, String>,
    /// A terminal of this size; pipes if none.
    pub terminal: Option<TerminalSize>,
}

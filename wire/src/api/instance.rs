//! What runs, and what happened to it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::id::HostId;
use crate::id::InstanceId;
use crate::quota::Quota;
use crate::report::Exit;
use crate::report::InstanceSample;
use crate::report::InstanceState;
use crate::report::Trouble;

/// An instance, as the person who owns the app sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Instance {
    /// Which.
    pub id: InstanceId,
    /// `web.1`.
    pub name: String,
    /// The release it runs.
    pub release: u64,
    /// The host it is on.
    pub host: HostId,
    /// The host's name.
    pub host_name: String,
    /// Why it is there, or what it waits for.
    pub reason: String,
    /// What it is doing; none before the host's first word about it.
    pub state: Option<InstanceState>,
    /// Since when.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub since: Option<Timestamp>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it last ended.
    pub last_exit: Option<Exit>,
    /// Why it is not well.
    pub trouble: Option<Trouble>,
    /// What it may use.
    pub quota: Quota,
    /// What of the quota its host does not, or not wholly, enforce, one sentence each.
    #[serde(default)]
    pub unenforced: Vec<String>,
    /// What it uses.
    pub sample: Option<InstanceSample>,
}

/// Something that happened to an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// `web.1`, `api`, `build`.
    pub process: String,
    /// Something to look up.
    pub code: Option<Code>,
    /// One sentence.
    pub message: String,
}

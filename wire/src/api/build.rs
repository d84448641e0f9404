//! How a build of pushed or uploaded source appears in the API; how one is asked of an agent belongs in `spec`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::BuildId;
use crate::report::Trouble;

/// A build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Build {
    /// Which.
    pub id: BuildId,
    /// When it was asked for.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it ended.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub ended_at: Option<Timestamp>,
    /// The commit, for a push.
    pub commit: Option<String>,
    /// Where it stands.
    pub status: BuildStatus,
    /// Why it failed.
    pub trouble: Option<Trouble>,
    /// The release it became.
    pub release: Option<u64>,
}

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    /// Waits for a host.
    Queued,
    /// A host is at it.
    Running,
    /// There is an image.
    Succeeded,
    /// There is none, and `trouble` says why.
    Failed,
}

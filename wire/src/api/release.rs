//! Releases, formations, and changes that make releases.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::BuildId;
use crate::image::HealthCheck;
use crate::image::ImageRef;
use crate::name::ProcessType;
use crate::quota::Bounds;
use crate::quota::Quota;
use crate::report::Trouble;

/// A change to one process type's formation. What is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FormationChange {
    /// Which process type.
    pub process: ProcessType,
    /// How many instances, 0 to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Quota of each, resource by resource.
    #[serde(default, skip_serializing_if = "QuotaChange::is_empty")]
    pub quota: QuotaChange,
}

/// Resources whose quota changes; see [`Quota`] for the units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct QuotaChange {
    /// CPU.
    pub cpu_millis: Option<BoundsChange>,
    /// Memory.
    pub memory_bytes: Option<BoundsChange>,
    /// CPU burst.
    pub cpu_burst_millis: Option<u64>,
    /// Memory above which it is slowed down.
    pub memory_high_bytes: Option<u64>,
    /// Swap.
    pub swap_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<BoundsChange>,
    /// Disk.
    pub disk_bytes: Option<BoundsChange>,
    /// Disk bytes a second.
    pub io_bytes_per_second: Option<u64>,
    /// Disk operations a second.
    pub io_operations_per_second: Option<u64>,
    /// Bytes sent a second.
    pub egress_bytes_per_second: Option<u64>,
    /// Open files of one process.
    pub open_files: Option<u64>,
    /// Log lines a second.
    pub log_lines_per_second: Option<BoundsChange>,
}

/// A change to one resource's floor, max or both. A floor that was not given is lowered to a smaller max.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BoundsChange {
    /// The new floor.
    pub floor: Option<u64>,
    /// The new max.
    pub max: Option<u64>,
}

impl BoundsChange {
    /// The bounds after the change.
    pub fn apply(self, old: Bounds) -> Bounds {
        let max = self.max.unwrap_or(old.max);
        Bounds { floor: self.floor.unwrap_or(old.floor.min(max)), max }
    }
}

impl QuotaChange {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The quota after the change. To be checked with [`Quota::check`].
    pub fn apply(&self, old: Quota) -> Quota {
        let one = |change: Option<BoundsChange>, old| change.unwrap_or_default().apply(old);
        let (cpu_millis, memory_bytes) =
            (one(self.cpu_millis, old.cpu_millis), one(self.memory_bytes, old.memory_bytes));
        Quota {
            cpu_millis,
            memory_bytes,
            // As floors do, these follow a max that is lowered below them.
            cpu_burst_millis: self.cpu_burst_millis.unwrap_or(old.cpu_burst_millis.min(cpu_millis.max)),
            memory_high_bytes: self.memory_high_bytes.unwrap_or(old.memory_high_bytes.min(memory_bytes.max)),
            swap_bytes: self.swap_bytes.unwrap_or(old.swap_bytes),
            io_bytes_per_second: self.io_bytes_per_second.unwrap_or(old.io_bytes_per_second),
            io_operations_per_second: self.io_operations_per_second.unwrap_or(old.io_operations_per_second),
            egress_bytes_per_second: self.egress_bytes_per_second.unwrap_or(old.egress_bytes_per_second),
            open_files: self.open_files.unwrap_or(old.open_files),
            pids: one(self.pids, old.pids),
            disk_bytes: one(self.disk_bytes, old.disk_bytes),
            log_lines_per_second: one(self.log_lines_per_second, old.log_lines_per_second),
        }
    }
}

/// One process type's formation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Formation {
    /// Which process type.
    pub process: ProcessType,
    /// Its command line; none if the current release does not know it.
    pub command: Option<String>,
    /// How many instances.
    pub count: u32,
    /// Quota of each.
    pub quota: Quota,
}

/// A change that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// The release it made; none where the app has no image yet (the change waits for the first) or nothing changed.
    pub release: Option<u64>,
    /// A sentence about it.
    pub message: String,
}

/// Back to an earlier release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Rollback {
    /// To which; the last one that served before the current if absent.
    pub version: Option<u64>,
}

/// A release: image, config vars and formation, immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Release {
    /// The `5` of `v5`.
    pub version: u64,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// What it is for: `Deploy 1a2b3c4`, `Set DATABASE_URL`, `Scale web to 3`, `Rollback to v3`.
    pub description: String,
    /// Who made it: a token's name, or `berth` for an automatic rollback.
    pub by: String,
    /// Where it stands.
    pub status: ReleaseStatus,
    /// Why it failed, or what it waits for.
    pub trouble: Option<Trouble>,
    /// What it runs.
    pub image: ImageRef,
    /// The commit the image was built from.
    pub commit: Option<String>,
    /// The build that made the image.
    pub build: Option<BuildId>,
    /// The formation in it.
    pub formation: Vec<Formation>,
    /// Health check of `web`.
    pub health: HealthCheck,
}

/// Where a release stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReleaseStatus {
    /// Its `release:` command runs; nothing was switched.
    Releasing,
    /// Its instances are coming up beside the old ones.
    Rolling,
    /// It serves.
    Current,
    /// It served, and a later one does now.
    Superseded,
    /// It did not come up; the release before it serves on.
    Failed,
}

impl ReleaseStatus {
    /// Whether it will not change by itself any more.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Current | Self::Superseded | Self::Failed)
    }
}

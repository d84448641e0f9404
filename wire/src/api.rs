//! The public API's bodies, `/v1`: what the CLI, the dashboard and scripts see. Errors are [`Problem`].
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | GET /v1/account | | [`Account`] |
//! | GET, POST /v1/apps | [`NewApp`] | `[App]`, [`App`] |
//! | GET, DELETE /v1/apps/{app} | | [`App`], 204 |
//! | GET, PATCH /v1/apps/{app}/config | [`ConfigChange`] | map of config vars; [`Change`] |
//! | GET, PATCH /v1/apps/{app}/formation | `[FormationChange]` | `[Formation]`; [`Change`] |
//! | GET /v1/apps/{app}/releases, /releases/{version} | | `[Release]`, [`Release`] |
//! | POST /v1/apps/{app}/rollback | [`Rollback`] | [`Change`] |
//! | POST /v1/apps/{app}/restart | | [`Change`] |
//! | GET /v1/apps/{app}/instances | | `[Instance]` |
//! | GET /v1/apps/{app}/builds, /builds/{id} | | `[Build]`, [`Build`] |
//! | POST /v1/apps/{app}/builds | a tar (`application/x-tar`) | [`Build`] |
//! | GET /v1/apps/{app}/builds/{id}/log?follow= | | `text/plain`, streamed |
//! | GET /v1/apps/{app}/logs?n=&follow=&process= | | JSON lines of [`crate::log::LogLine`], streamed |
//! | GET /v1/apps/{app}/events | | `[Event]`, newest first |
//! | GET /v1/hosts | | `[Host]` |
//! | GET, POST /v1/tokens; DELETE /v1/tokens/{id} | [`NewToken`] | `[Token]`, [`CreatedToken`], 204 |
//! | GET /v1/stacks; PUT /v1/stacks/{name} | [`StackImage`] | `[Stack]`, [`Stack`] |
//! | GET /v1/hosts/{id}/metrics | | Prometheus text |
//! | GET /v1/openapi.json | | the document generated from the handlers; no token needed |
//! | GET /healthz, /metrics | | no token for the first |
//!
//! `{app}` is the app's name. A change is accepted at once (202, a release number); whether it came up is the release's `status`,
//! to be polled, or awaited with `GET /v1/apps/{app}/releases/{version}?wait=30` (answers when the status is final, or after `wait` seconds).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::id::{AppId, BuildId, HostId, InstanceId, TeamId, TokenId};
use crate::image::{HealthCheck, ImageRef};
use crate::name::{AppName, ConfigKey, Domain, ProcessType};
use crate::quota::{Bounds, Quota};
use crate::report::{Exit, HostFacts, InstanceSample, InstanceState, Trouble};

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

/// Whose token this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Account {
    /// The token's team.
    pub team: TeamId,
    /// Its name.
    pub team_name: String,
    /// The token's own name.
    pub token_name: String,
    /// The control plane's version.
    pub server_version: String,
}

/// An app to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewApp {
    /// Its name.
    pub name: AppName,
}

/// An app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct App {
    /// Its id, for ever.
    pub id: AppId,
    /// Its name.
    pub name: AppName,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// Where to push: `http://HOST:PORT/git/NAME.git`.
    pub git_url: String,
    /// Where it answers: `http://NAME.localhost:PORT/`.
    pub web_url: String,
    /// Every domain routed to it.
    pub domains: Vec<Domain>,
    /// The release that serves; none before the first.
    pub release: Option<u64>,
    /// The release that is on its way, if any.
    pub rolling: Option<u64>,
}

/// Config vars to be set and unset, in one release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ConfigChange {
    /// To be set. A value is at most 32 KiB, all of an app's together at most 256 KiB.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub set: BTreeMap<ConfigKey, String>,
    /// To be unset. Unknown keys are an error.
    pub unset: Vec<ConfigKey>,
}

/// A change to one process type's formation. What is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[serde(default)]
pub struct QuotaChange {
    /// CPU.
    pub cpu_millis: Option<BoundsChange>,
    /// Memory.
    pub memory_bytes: Option<BoundsChange>,
    /// Processes and threads.
    pub pids: Option<BoundsChange>,
    /// Disk.
    pub disk_bytes: Option<BoundsChange>,
    /// Log lines a second.
    pub log_lines_per_second: Option<BoundsChange>,
}

/// A change to one resource's floor, max or both. A floor that was not given is lowered to a smaller max.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
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
        Quota {
            cpu_millis: one(self.cpu_millis, old.cpu_millis),
            memory_bytes: one(self.memory_bytes, old.memory_bytes),
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
#[serde(default)]
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
    /// What it uses.
    pub sample: Option<InstanceSample>,
}

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

/// A host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Host {
    /// Which.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// Whether it reported within the last 30 s.
    pub up: bool,
    /// When it last did.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub seen_at: Option<Timestamp>,
    /// What it is and has.
    pub facts: HostFacts,
    /// Sum of the floors placed on it, CPU.
    pub cpu_millis_reserved: u64,
    /// Sum of the floors placed on it, memory.
    pub memory_bytes_reserved: u64,
    /// Instances placed on it.
    pub instances: u64,
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewToken {
    /// What it is for, 1 to 80 characters.
    pub name: String,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// Which.
    pub id: TokenId,
    /// What it is for.
    pub name: String,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub used_at: Option<Timestamp>,
}

/// A token that was just made: the only time its secret is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedToken {
    /// The token.
    pub token: Token,
    /// Its secret, `berth_…`.
    pub secret: String,
}

/// The image of a stack, already pushed to the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StackImage {
    /// Which image.
    pub image: ImageRef,
}

/// A stack: the base image apps are built and run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stack {
    /// Its name, `berth-13`.
    pub name: String,
    /// Its image.
    pub image: ImageRef,
    /// When it was imported.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub imported_at: Timestamp,
}

//! The spec: all that one host should run. The control plane's planner writes it whole; the agent persists it,
//! then makes the host match. Repeating one is harmless.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attach::TerminalSize;
use crate::digest::Digest;
use crate::id::{AppId, BuildId, HostId, InstanceId, TeamId};
use crate::image::{HealthCheck, ImageRef};
use crate::name::{AppName, Domain, ProcessType};
use crate::quota::Quota;

/// Which spec: ordered by epoch, then number. A control plane restored from a backup starts a new epoch, so that
/// its numbers cannot be mistaken for those it handed out before. An agent rejects an older generation, and the
/// same generation with other content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Generation {
    /// Unix seconds of the store's creation or last restore.
    pub epoch: u64,
    /// Grows by at least one with each change.
    pub number: u64,
}

/// All that one host should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Whom it is for; an agent rejects another host's.
    pub host: HostId,
    /// Which one it is.
    pub generation: Generation,
    /// Every instance the host should have, in any desired state. One that is missing here is removed.
    pub instances: Vec<InstanceSpec>,
    /// Where HTTP goes. The agent gives the edge these, cut down to instances that it sees healthy.
    pub routes: Vec<Route>,
}

impl Spec {
    /// The digest of everything but the generation: equal content, equal digest.
    pub fn content_digest(&self) -> Digest {
        // A serde_json encoding of these types cannot fail: all map keys are strings.
        let content = serde_json::to_vec(&(&self.host, &self.instances, &self.routes)).unwrap_or_default();
        Digest::of(&content)
    }
}

/// One instance as it should be. All but `desired` and `quota` is immutable: a change is another instance with another id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Which instance. Never reused.
    pub id: InstanceId,
    /// The team that owns the app.
    pub team: TeamId,
    /// The app.
    pub app: AppId,
    /// Its name, for log lines, metrics' labels and the container's host name.
    pub app_name: AppName,
    /// Process type: `web`, `worker`, `release`, `build`.
    pub process: ProcessType,
    /// The `1` of `web.1`. During a rolling change two instances may carry the same one.
    pub index: u32,
    /// The `5` of `v5`; 0 for a build.
    pub release: u64,
    /// What should be true of it now.
    pub desired: Desired,
    /// What it does.
    pub work: Work,
    /// What it may use. A change is applied to the running container, or refused in the report if that cannot be.
    pub quota: Quota,
}

/// What an instance does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Runs until told to stop; the agent restarts it with back-off when it exits.
    Service(ProcessSpec),
    /// Runs once; the report carries its exit status (`release:`, one-off commands).
    OneOff(ProcessSpec),
    /// Builds an image from a source tree; the report carries the outcome.
    Build(BuildSpec),
}

/// A process from an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The image to run.
    pub image: ImageRef,
    /// The argument vector, e.g. `["/bin/sh", "-c", "gunicorn app:app"]`. Never given to a shell on the host.
    pub argv: Vec<String>,
    /// The whole environment (pack, config vars, `PORT`, `BERTH_*`). May hold secrets: never logged, encrypted at rest.
    pub env: BTreeMap<String, String>,
    /// The port that `web` must bind; nothing is checked or routed without one.
    pub port: Option<u16>,
    /// How health is found out (only with a port; without one an instance is healthy while it runs).
    pub health: HealthCheck,
    /// Seconds between SIGTERM and SIGKILL.
    pub stop_grace_seconds: u32,
    /// A one-off's longest run in seconds; it is killed after that. Ignored for services.
    pub run_seconds_max: u32,
    /// Whether somebody is to be attached to its standard streams; they go into the log otherwise. Only for one-offs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Attached>,
}

/// How somebody is attached to a one-off: its streams are theirs, and it gets SIGHUP when the connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// A terminal of this size; pipes if none.
    pub terminal: Option<TerminalSize>,
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSpec {
    /// Which build.
    pub build: BuildId,
    /// The source tree, an uncompressed tar, to be fetched from the control plane by this digest.
    pub source: Digest,
    /// The commit it came from, for `BERTH_COMMIT`/`SOURCE_VERSION`; absent for `berth deploy .`.
    pub commit: Option<String>,
    /// The stack image that the app is built and run on.
    pub stack: ImageRef,
    /// Where to push the result.
    pub repository: String,
    /// Config vars, visible to private steps only (never to a shared layer's step), never in a layer.
    pub env: BTreeMap<String, String>,
    /// The longest a build may take, in seconds.
    pub run_seconds_max: u32,
}

/// What should be true of an instance now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It runs.
    Run,
    /// It gets no new requests; once the edge acknowledged that and nothing is in flight (or `DRAIN_SECONDS_MAX`
    /// passed) it is stopped: SIGTERM, grace, SIGKILL. It then stays, exited, until it leaves the spec.
    Drain,
}

/// How long a drain waits for requests in flight: the edge's own longest silence is 55 s, Heroku's router waits 30 s.
pub const DRAIN_SECONDS_MAX: u64 = 30;

/// Where requests for one domain go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The host name of the request, without port.
    pub domain: Domain,
    /// The app, so that an answer about a missing instance can name it.
    pub app: AppId,
    /// Its name.
    pub app_name: AppName,
    /// Who may answer. May be empty: the edge then says that the app has no instances.
    pub instances: Vec<InstanceId>,
}

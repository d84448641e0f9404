//! The report: what a host does run. The agent sends one after every change and at least every
//! [`REPORT_SECONDS_MAX`]; the control plane answers with [`ReportReceipt`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::id::{AppId, InstanceId};
use crate::image::{AppManifest, ImageRef};
use crate::quota::Quota;
use crate::spec::Generation;

/// A host that was silent for three of these counts as down.
pub const REPORT_SECONDS_MAX: u64 = 10;

/// What a host does run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The newest spec the agent has persisted; none before the first.
    pub generation: Option<Generation>,
    /// Every instance the host has, those leaving included.
    pub instances: Vec<InstanceReport>,
    /// What the edge serves.
    pub edge: EdgeReport,
    /// What the host is and has.
    pub host: HostFacts,
    /// The newest sample of each running instance.
    pub samples: Vec<InstanceSample>,
    /// What happened since the last receipt, oldest first, at most [`EVENTS_MAX`]; repeated until received.
    pub events: Vec<HostEvent>,
}

/// Most events in one report, and most the agent keeps: 1,000 of about 300 bytes; older ones are dropped and counted.
pub const EVENTS_MAX: usize = 1_000;

/// The answer to a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportReceipt {
    /// Every event up to and including this number is stored and need not be sent again.
    pub events_received: u64,
}

/// One instance as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Which.
    pub id: InstanceId,
    /// What it is doing.
    pub state: InstanceState,
    /// Since when it has been in this state.
    pub since: Timestamp,
    /// How often the agent started it again after it had exited by itself.
    pub restarts: u32,
    /// How the newest process that ended, ended.
    pub last_exit: Option<Exit>,
    /// Why it is not well, where it is not: code, sentence, last lines of its log.
    pub trouble: Option<Trouble>,
    /// Of a build that ended well.
    pub built: Option<Built>,
    /// The quota in force; none while it has no container, and from agents that do not tell.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// The quota that its container cannot be given while it runs.
    #[serde(default)]
    pub refused: Option<RefusedQuota>,
}

/// A change of quota that a running container cannot be given: it takes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedQuota {
    /// What was wanted.
    pub quota: Quota,
    /// Why not; the quota before is still in force.
    pub reason: String,
}

/// What an instance is doing.
///
/// ```text
/// Preparing ──> Starting ──> Healthy <──> Unhealthy
///     ^            │            │             │        Service: exits ──> BackingOff ──> Preparing
///     │            └────────────┴──── exits ──┘        OneOff, Build: exits ──> Exited
/// BackingOff                                            Desired::Drain ──> Draining ──> Stopping ──> Exited
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Image, network, cgroups and disk are being made.
    Preparing,
    /// Its process runs but it has not been healthy yet.
    Starting,
    /// It answers (or, without a port, runs).
    Healthy,
    /// It was healthy, still runs, and does not answer.
    Unhealthy,
    /// It exited by itself (or could not be launched); it will be started again after a pause.
    BackingOff,
    /// It gets no new requests; some are in flight.
    Draining,
    /// SIGTERM was sent.
    Stopping,
    /// It ended and will not be started again.
    Exited,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It called exit with this code.
    Code(u8),
    /// A signal killed it.
    Signal(u8),
    /// The kernel's OOM killer ended the container as a whole.
    OutOfMemory,
    /// It ran longer than it may and was killed.
    TimedOut,
    /// It ended while nobody watched, on a kernel that does not tell afterwards.
    Unknown,
}

/// Why something is not well, for people: what happened, the last log lines, and a code to look up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trouble {
    /// Stable code (`berth explain CODE`).
    pub code: Code,
    /// One sentence about this very case.
    pub message: String,
    /// The last lines of the log, at most [`LOG_TAIL_LINES_MAX`].
    #[serde(default)]
    pub log_tail: Vec<String>,
}

/// Last log lines that travel with a trouble: what fits a terminal without scrolling.
pub const LOG_TAIL_LINES_MAX: usize = 20;

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// The image, pushed to the registry.
    pub image: ImageRef,
    /// What is in it.
    pub app: AppManifest,
}

/// What the host's edge serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeReport {
    /// Whether the edge is connected.
    pub connected: bool,
    /// The newest route table that the edge acknowledged.
    pub table: u64,
    /// The instances that table routes to: what "routed" means to the planner.
    pub serving: Vec<InstanceId>,
}

/// What a host is and has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostFacts {
    /// The agent's version.
    pub agent_version: String,
    /// uname -r.
    pub kernel: String,
    /// Cores, in thousandths.
    pub cpu_millis: u64,
    /// MemTotal.
    pub memory_bytes: u64,
    /// MemAvailable.
    pub memory_available_bytes: u64,
    /// Size of the file system that the instances' roots are on.
    pub disk_bytes: u64,
    /// Free bytes of it.
    pub disk_available_bytes: u64,
    /// Bytes of it that floors may reserve; 0 if the agent does not say, then all.
    #[serde(default)]
    pub disk_reservable_bytes: u64,
    /// Most processes (kernel.pid_max).
    pub pids: u64,
    /// What `berth doctor` would warn about, one sentence each.
    pub warnings: Vec<String>,
    /// Fields of a quota that are not, or not wholly, enforced on this host, each with the reason.
    #[serde(default)]
    pub unenforced: BTreeMap<String, String>,
}

/// One instance's counters and gauges, read from the kernel at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceSample {
    /// Which instance (nil UUID in a default value).
    pub instance: Option<InstanceId>,
    /// CPU time used since it was made, in microseconds.
    pub cpu_usage_us: u64,
    /// Time it was not allowed to run because of cpu.max, in microseconds.
    pub cpu_throttled_us: u64,
    /// Periods in which that happened.
    pub cpu_throttled_periods: u64,
    /// Periods in which it wanted to run.
    pub cpu_periods: u64,
    /// Charged memory, in bytes.
    pub memory_usage_bytes: u64,
    /// Charged memory less inactive file pages: what cAdvisor calls the working set.
    pub memory_working_set_bytes: u64,
    /// Of its memory, what is swapped out, in bytes: no longer among the charged.
    #[serde(default)]
    pub memory_swap_bytes: u64,
    /// Bytes read from the host's disk for it.
    #[serde(default)]
    pub io_read_bytes: u64,
    /// Bytes written to the host's disk for it.
    #[serde(default)]
    pub io_write_bytes: u64,
    /// Times the OOM killer struck.
    pub memory_oom_kills: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// Bytes in its own root.
    pub disk_usage_bytes: u64,
    /// Bytes received, counted at the host's end of its veth.
    pub network_receive_bytes: u64,
    /// Bytes sent.
    pub network_transmit_bytes: u64,
    /// Log lines discarded because of the log rate.
    pub log_lines_discarded: u64,
    /// Requests answered by the edge.
    pub requests: u64,
}

/// Something that happened on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEvent {
    /// Grows by one with each event of this host, across restarts of the agent.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// The app it concerns, if any.
    pub app: Option<AppId>,
    /// The instance it concerns, if any.
    pub instance: Option<InstanceId>,
    /// `web.1`, or the part of the platform.
    pub process: String,
    /// A code where there is something to look up.
    pub code: Option<Code>,
    /// One sentence, e.g. "Process exited with status 1".
    pub message: String,
    /// Extra facts for machines; never a secret.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

//! An instance that was placed on a host, with its host's last word about it, and what that word means.

use berth_wire::code::Code;
use berth_wire::id::{BuildId, HostId};
use berth_wire::report::{Exit, InstanceReport, InstanceState, Trouble};
use berth_wire::spec::{Desired, InstanceSpec, ProcessSpec, Work};
use jiff::{SignedDuration, Timestamp};

/// A placed instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What it is told to do; `desired` is the planner's newest decision.
    pub spec: InstanceSpec,
    /// Where.
    pub host: HostId,
    /// Equal for instances that do the same.
    pub fingerprint: String,
    /// The newest release that it belongs to (`spec.release` is the one that made it).
    pub release: u64,
    /// The build it runs, for a build instance.
    pub build: Option<BuildId>,
    /// Why it is there.
    pub reason: String,
    /// When it was placed.
    pub created_at: Timestamp,
    /// What its host last said; none before its first word.
    pub report: Option<InstanceReport>,
}

/// How long a process without a port must run until it counts as up. A command that does not exist or a worker that
/// cannot reach its queue exits within a second; three leave room for a slow interpreter.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(3);

/// How often a new instance may be started again before its release counts as failed. One crash may be a database
/// that was not up yet; three in a row are the release's own.
pub const RESTARTS_MAX: u32 = 3;

/// Beyond its boot timeout, how long an instance may say "starting" until the control plane gives up on it: the agent
/// itself reports R10 in time, unless it is broken.
const BOOT_SLACK: SignedDuration = SignedDuration::from_secs(30);

/// What a host's word means for the release that made the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not up yet.
    Coming,
    /// Up: healthy, and for `web` also in the route table that the edge has acknowledged.
    Ready,
    /// It will not come up.
    Failed(Trouble),
}

impl Placed {
    /// `web.1`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.spec.process, self.spec.index)
    }

    /// Whether it should run.
    pub fn runs(&self) -> bool {
        self.spec.desired == Desired::Run
    }

    /// What it runs, if it is a service.
    pub fn service(&self) -> Option<&ProcessSpec> {
        match &self.spec.work {
            Work::Service(process) => Some(process),
            _ => None,
        }
    }

    /// Whether its host says that it ended for good, or never heard of it.
    pub fn is_gone(&self) -> bool {
        self.report.as_ref().is_none_or(|report| report.state == InstanceState::Exited)
    }

    /// Whether its process has ended, for now or for good.
    pub fn is_down(&self) -> bool {
        let state = self.report.as_ref().map(|report| report.state);
        matches!(state, Some(InstanceState::BackingOff | InstanceState::Exited))
    }

    /// Whether it does its work: healthy, and routed if it has a port. `serving`: the edge of its host says so.
    pub fn is_ready(&self, serving: bool, now: Timestamp) -> bool {
        let Some(report) = self.report.as_ref().filter(|r| r.state == InstanceState::Healthy) else {
            return false;
        };
        match self.service().and_then(|process| process.port) {
            Some(_) => serving,
            None => now.duration_since(report.since) >= SETTLE,
        }
    }

    /// What its host's word means for the release that made it.
    pub fn verdict(&self, serving: bool, now: Timestamp) -> Verdict {
        let (Some(report), Some(process)) = (&self.report, self.service()) else { return Verdict::Coming };
        let in_state = now.duration_since(report.since);
        let patience = SignedDuration::from_secs(i64::from(process.health.boot_timeout_seconds)) + BOOT_SLACK;
        let failed = match report.state {
            _ if report.restarts >= RESTARTS_MAX => true,
            InstanceState::Exited => true,
            InstanceState::BackingOff => report.trouble.as_ref().is_some_and(|t| is_final(t.code)),
            InstanceState::Starting | InstanceState::Unhealthy => in_state > patience,
            _ => false,
        };
        if failed {
            return Verdict::Failed(self.trouble_of(report));
        }
        if self.is_ready(serving, now) { Verdict::Ready } else { Verdict::Coming }
    }

    /// Its trouble, or the best that can be said where its host gave none.
    pub fn trouble_of(&self, report: &InstanceReport) -> Trouble {
        let name = self.name();
        if let Some(trouble) = &report.trouble {
            return Trouble { message: format!("{name}: {}", trouble.message), ..trouble.clone() };
        }
        let (code, what) = match (report.state, report.last_exit) {
            (_, Some(Exit::OutOfMemory)) => (Code::R14, "ran out of memory".to_owned()),
            (InstanceState::Starting, _) => (Code::R10, "did not come up in time".to_owned()),
            (InstanceState::Unhealthy, _) => (Code::R17, "does not answer its health check".to_owned()),
            (_, Some(exit)) => (Code::R18, format!("crashed: {}", describe_exit(exit))),
            (_, None) => (Code::R18, "does not stay up".to_owned()),
        };
        Trouble { code, message: format!("{name} {what}; `berth logs` has its output"), log_tail: Vec::new() }
    }
}

/// How a process ended, in words.
pub fn describe_exit(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with status {code}"),
        Exit::Signal(signal) => format!("was killed by signal {signal}"),
        Exit::OutOfMemory => "was killed because it ran out of memory".to_owned(),
        Exit::TimedOut => "ran longer than it may".to_owned(),
        Exit::Unknown => "ended while nobody watched".to_owned(),
    }
}

/// Whether trying again cannot help: the process exited at once, bound the wrong thing, or is not there at all.
/// A crash later (R18), a container that could not be launched (R20: perhaps its image could not be fetched just now)
/// and running out of memory (R14) get [`RESTARTS_MAX`] attempts.
fn is_final(code: Code) -> bool {
    matches!(code, Code::R10 | Code::R11 | Code::R13 | Code::R16 | Code::R17 | Code::R19)
}

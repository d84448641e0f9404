//! What the agent knows about one instance: plain data, changed by `transition`, read by `plan` and `report`.
//! No I/O, no clock.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use berth_wire::id::InstanceId;
use berth_wire::quota::Quota;
use berth_wire::report::{Built, Exit, InstanceReport, InstanceState, RefusedQuota, Trouble};
use berth_wire::spec::{Desired, InstanceSpec, ProcessSpec, Work};
use jiff::Timestamp;

/// Every instance the agent has heard of and not yet forgotten.
pub type Records = BTreeMap<InstanceId, Record>;

/// One moment on both clocks: the wall's for people, the monotonic one (since the agent started) for deadlines, so that
/// a corrected clock neither kills nor spares anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For reports and logs.
    pub wall: Timestamp,
    /// For deadlines.
    pub mono: Duration,
}

/// One instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What it should be, as last said; none for a container found at start that no spec names.
    pub spec: Option<Arc<InstanceSpec>>,
    /// Whether the spec in force still has it.
    pub wanted: bool,
    /// What it is doing.
    pub phase: Phase,
    /// Since when it is in the state that reports show.
    pub since: Timestamp,
    /// What of it is on the machine.
    pub remains: Remains,
    /// Its address, while it has one. Kept over restarts of a service.
    pub address: Option<Ipv4Addr>,
    /// The host's pid of its init, while it runs.
    pub pid: Option<u32>,
    /// Counts launches; an event about an earlier one is ignored.
    pub launch: u32,
    /// How often it was started again after it had ended by itself.
    pub restarts: u32,
    /// How often it ran out of memory: its control group's own count ends with each launch.
    pub out_of_memory: u32,
    /// Failures in a row, for the pause before the next start.
    pub failures: u32,
    /// How its newest process that ended, ended.
    pub last_exit: Option<Exit>,
    /// Why it is not well.
    pub trouble: Option<Trouble>,
    /// Why it is being killed, found out before the kill.
    pub verdict: Option<Trouble>,
    /// Of a build that ended well.
    pub built: Option<Built>,
    /// The quota in force, while it has a container; none if that is not known.
    pub quota: Option<Quota>,
    /// The quota that its container could not be given.
    pub refused: Option<RefusedQuota>,
    /// The step that is under way; there is never a second one.
    pub underway: Option<Underway>,
    /// After a step failed for reasons of the machine: not before this.
    pub retry_at: Option<Duration>,
}

/// What an instance is doing, finer than [`InstanceState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// To be started as soon as nothing is left of its last launch.
    Preparing,
    /// Its process (or its build) runs.
    Running {
        /// When it was launched.
        started: Duration,
        /// What the checks say.
        health: Health,
        /// Since when they say that it is well.
        well_since: Option<Duration>,
    },
    /// It ended by itself.
    BackingOff {
        /// Not to be started before this.
        until: Duration,
    },
    /// It runs without new requests.
    Draining {
        /// Since when.
        since: Duration,
    },
    /// SIGTERM is under way.
    Stopping,
    /// It ended for good.
    Exited,
}

/// What the checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not yet well.
    Unknown,
    /// Well.
    Up,
    /// Was well, is not.
    Down,
}

/// What of an instance is on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// Nothing.
    Nothing,
    /// Any part of a container: process, cgroup, root, interface.
    Container,
    /// Only the claim on its address.
    Address,
}

/// A step that was begun and has not reported back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underway {
    /// Image, container, launch.
    Start,
    /// A build: its whole run.
    Build,
    /// A build that was told to end.
    Cancel,
    /// Kill with a verdict.
    Kill,
    /// SIGTERM, grace, SIGKILL.
    Stop,
    /// Removing all but the address.
    Clean,
    /// Removing everything.
    Destroy,
    /// Giving the running container another quota.
    Quota,
}

impl Record {
    /// A record of an instance that a spec names for the first time.
    pub fn new(spec: Arc<InstanceSpec>, now: Moment) -> Self {
        Self { spec: Some(spec), ..Self::unknown(now) }
    }

    /// A record of something found on the machine that no spec names.
    pub fn unknown(now: Moment) -> Self {
        Self {
            spec: None,
            wanted: true,
            phase: Phase::Preparing,
            since: now.wall,
            remains: Remains::Nothing,
            address: None,
            pid: None,
            launch: 0,
            restarts: 0,
            out_of_memory: 0,
            failures: 0,
            last_exit: None,
            trouble: None,
            verdict: None,
            built: None,
            quota: None,
            refused: None,
            underway: None,
            retry_at: None,
        }
    }

    /// Whether it should run now.
    pub fn should_run(&self) -> bool {
        self.wanted && self.spec.as_ref().is_some_and(|s| s.desired == Desired::Run)
    }

    /// Its process, if it is one.
    pub fn process(&self) -> Option<&ProcessSpec> {
        self.spec.as_ref().and_then(|s| process_of(&s.work))
    }

    /// The quota that its running container should be given and has not been.
    pub fn quota_due(&self) -> Option<Quota> {
        let wanted = self.spec.as_ref()?.quota;
        let refused = self.refused.as_ref().is_some_and(|refused| refused.quota == wanted);
        (self.quota != Some(wanted) && !refused && !self.is_build()).then_some(wanted)
    }

    /// Whether it is a service, which is restarted.
    pub fn is_service(&self) -> bool {
        matches!(self.spec.as_ref().map(|s| &s.work), Some(Work::Service(_)))
    }

    /// Whether it is a build.
    pub fn is_build(&self) -> bool {
        matches!(self.spec.as_ref().map(|s| &s.work), Some(Work::Build(_)))
    }

    /// Whether its process may be running.
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Draining { .. } | Phase::Stopping)
    }

    /// Whether the edge may send it requests.
    pub fn is_routable(&self) -> bool {
        self.should_run()
            && self.address.is_some()
            && matches!(self.phase, Phase::Running { health: Health::Up, .. })
    }

    /// Goes into another phase; `since` moves only if reports show another state.
    pub fn enter(&mut self, phase: Phase, now: Moment) {
        let before = self.state();
        self.phase = phase;
        if self.state() != before {
            self.since = now.wall;
        }
    }

    /// The state that reports show.
    pub fn state(&self) -> InstanceState {
        match self.phase {
            Phase::Preparing => InstanceState::Preparing,
            Phase::Running { health: Health::Unknown, .. } => InstanceState::Starting,
            Phase::Running { health: Health::Up, .. } => InstanceState::Healthy,
            Phase::Running { health: Health::Down, .. } => InstanceState::Unhealthy,
            Phase::BackingOff { .. } => InstanceState::BackingOff,
            Phase::Draining { .. } => InstanceState::Draining,
            Phase::Stopping => InstanceState::Stopping,
            Phase::Exited => InstanceState::Exited,
        }
    }

    /// `web.1`, for people; the platform's own word where no spec is known.
    pub fn label(&self) -> String {
        self.spec.as_ref().map_or_else(|| "agent".to_owned(), |s| label(s))
    }

    /// What a report says about it.
    pub fn report(&self, id: InstanceId) -> InstanceReport {
        InstanceReport {
            id,
            state: self.state(),
            since: self.since,
            restarts: self.restarts,
            last_exit: self.last_exit,
            trouble: self.trouble.clone(),
            built: self.built.clone(),
            quota: self.quota.filter(|_| self.remains == Remains::Container),
            refused: self.refused.clone(),
        }
    }
}

/// `web.1`.
pub fn label(spec: &InstanceSpec) -> String {
    format!("{}.{}", spec.process, spec.index)
}

/// The process of a service or one-off.
pub fn process_of(work: &Work) -> Option<&ProcessSpec> {
    match work {
        Work::Service(process) | Work::OneOff(process) => Some(process),
        Work::Build(_) => None,
    }
}

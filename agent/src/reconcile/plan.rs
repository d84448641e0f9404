//! The reconciler's decisions: (records, what the edge may still use, now) -> steps. Pure: no I/O, no clock, no task.
//! What a step means for a record is in `transition`; how it is done is in `execute`.
//!
//! Removals come before additions; no step waits for another instance's.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_wire::id::InstanceId;
use berth_wire::spec::{DRAIN_SECONDS_MAX, Work};

use super::record::{Health, Moment, Phase, Record, Records, Remains, process_of};

/// A process without a port counts as well once it has run this long: a worker that cannot even load its code ends sooner,
/// and a release of workers that crash at once must not look healthy.
pub const SETTLE: Duration = Duration::from_secs(1);

/// Grace of a container that no spec describes any more: Heroku's 30 s.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// One thing to do. The order of the variants is the order of execution: removals first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Remove everything of it, free its address, forget it.
    Destroy(InstanceId),
    /// Remove everything but its address.
    Clean(InstanceId),
    /// Find out why, then kill it.
    Kill(InstanceId, Why),
    /// SIGTERM, this long, SIGKILL.
    Stop(InstanceId, Duration),
    /// End a build.
    Cancel(InstanceId),
    /// Take it out of the routes and wait for its requests.
    Drain(InstanceId),
    /// Give its running container the quota that the spec says now.
    Quota(InstanceId),
    /// It does not run and shall not: it is over.
    Retire(InstanceId),
    /// It has run long enough without a port to count as well.
    Settle(InstanceId),
    /// Image, container, launch.
    Start(InstanceId),
    /// Run the build.
    Build(InstanceId),
}

impl Step {
    /// Whom it is about.
    pub fn instance(&self) -> InstanceId {
        match *self {
            Step::Destroy(id)
            | Step::Clean(id)
            | Step::Kill(id, _)
            | Step::Stop(id, _)
            | Step::Cancel(id)
            | Step::Drain(id)
            | Step::Quota(id)
            | Step::Retire(id)
            | Step::Settle(id)
            | Step::Start(id)
            | Step::Build(id) => id,
        }
    }
}

/// Why something is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Not healthy within its boot timeout.
    BootTimeout,
    /// A one-off that ran longer than it may.
    RanTooLong,
}

/// What is to be done now, and when to look again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Who may get requests.
    pub routable: BTreeSet<InstanceId>,
    /// The next deadline on the monotonic clock, if there is one.
    pub wake_at: Option<Duration>,
}

/// What the edge may still use, as far as is known.
pub trait EdgeView {
    /// Whether the edge, by its own word, neither routes to this instance nor has a request or connection to it: its
    /// address may go to another.
    fn is_free_of(&self, id: InstanceId) -> bool;
    /// Whether stopping it hurts no request that could be spared. Weaker: an edge that is gone has none in flight.
    fn may_stop(&self, id: InstanceId) -> bool;
}

/// Decides.
pub fn plan(records: &Records, edge: &impl EdgeView, now: Moment) -> Plan {
    let mut plan = Plan::default();
    for (&id, record) in records {
        if record.is_routable() {
            plan.routable.insert(id);
        }
        match next(id, record, edge, now.mono) {
            Next::Do(step) => plan.steps.push(step),
            Next::At(deadline) => plan.wake_at = Some(plan.wake_at.map_or(deadline, |w| w.min(deadline))),
            Next::Nothing => {}
        }
    }
    plan.steps.sort();
    plan
}

enum Next {
    Do(Step),
    At(Duration),
    Nothing,
}

fn next(id: InstanceId, record: &Record, edge: &impl EdgeView, now: Duration) -> Next {
    if record.underway.is_some() {
        // A build is one long step; it is the only one that can be told to end before it reports back.
        let cancel = record.underway == Some(super::record::Underway::Build) && !record.should_run();
        return if cancel { Next::Do(Step::Cancel(id)) } else { Next::Nothing };
    }
    if let Some(retry_at) = record.retry_at
        && now < retry_at
    {
        return Next::At(retry_at);
    }
    let runs = record.should_run();
    match record.phase {
        Phase::Running { .. } if !runs => Next::Do(Step::Drain(id)),
        Phase::Running { .. } if record.quota_due().is_some() => Next::Do(Step::Quota(id)),
        Phase::Running { started, health, .. } => while_running(id, record, started, health, now),
        Phase::Draining { since } => while_draining(id, record, since, edge, now),
        // Under way whenever it is alive; without a step under way the stop failed and is repeated.
        Phase::Stopping => Next::Do(Step::Stop(id, grace(record))),
        Phase::Preparing | Phase::BackingOff { .. } if !runs => Next::Do(Step::Retire(id)),
        _ if record.remains == Remains::Container => Next::Do(Step::Clean(id)),
        Phase::BackingOff { until } if now < until => Next::At(until),
        Phase::Preparing | Phase::BackingOff { .. } if record.is_build() => Next::Do(Step::Build(id)),
        Phase::Preparing | Phase::BackingOff { .. } => Next::Do(Step::Start(id)),
        Phase::Exited if !record.wanted && (!may_be_routed(record) || edge.is_free_of(id)) => {
            Next::Do(Step::Destroy(id))
        }
        Phase::Exited => Next::Nothing,
    }
}

fn while_running(id: InstanceId, record: &Record, started: Duration, health: Health, now: Duration) -> Next {
    let Some(spec) = &record.spec else { return Next::Nothing };
    let Some(process) = process_of(&spec.work) else { return Next::Nothing };
    if matches!(spec.work, Work::OneOff(_)) {
        let deadline = started + Duration::from_secs(process.run_seconds_max.into());
        return if now >= deadline { Next::Do(Step::Kill(id, Why::RanTooLong)) } else { Next::At(deadline) };
    }
    if health != Health::Unknown {
        return Next::Nothing;
    }
    if process.port.is_none() {
        let deadline = started + SETTLE;
        return if now >= deadline { Next::Do(Step::Settle(id)) } else { Next::At(deadline) };
    }
    let deadline = started + Duration::from_secs(process.health.boot_timeout_seconds.into());
    if now >= deadline { Next::Do(Step::Kill(id, Why::BootTimeout)) } else { Next::At(deadline) }
}

fn while_draining(
    id: InstanceId,
    record: &Record,
    since: Duration,
    edge: &impl EdgeView,
    now: Duration,
) -> Next {
    let deadline = since + Duration::from_secs(DRAIN_SECONDS_MAX);
    if !may_be_routed(record) || edge.may_stop(id) || now >= deadline {
        Next::Do(Step::Stop(id, grace(record)))
    } else {
        Next::At(deadline)
    }
}

fn grace(record: &Record) -> Duration {
    record.process().map_or(GRACE_DEFAULT, |p| Duration::from_secs(p.stop_grace_seconds.into()))
}

/// Whether the edge may ever have heard of it. Without a spec nobody knows.
fn may_be_routed(record: &Record) -> bool {
    match &record.spec {
        Some(_) => record.process().is_some_and(|p| p.port.is_some()),
        None => true,
    }
}

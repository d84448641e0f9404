//! How a record changes: by the spec, by a step that begins, by something that happened. Pure: what is worth telling
//! comes back as happenings for the journal.
//!
//! A drain is final: an instance that was told to drain is never routed or started again, whatever a later spec says.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::id::InstanceId;
use berth_wire::quota::Quota;
use berth_wire::report::{Built, Exit, RefusedQuota, Trouble};
use berth_wire::spec::Spec;

use super::plan::Step;
use super::quota;
use super::record::{Health, Moment, Phase, Record, Records, Remains, Underway};
use crate::journal::Happening;

/// The first pause after a crash; it doubles with each one in a row.
pub const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause: a crashing instance costs one launch a minute.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// A service that was well for this long starts with the shortest pause again.
pub const BACK_OFF_RESET: Duration = Duration::from_secs(60);
/// A service that never was well and ran for less than this "exited at once".
pub const AT_ONCE: Duration = Duration::from_secs(5);
/// The pause before a step that the machine refused (launcher not there, busy mount) is tried again.
pub const RETRY: Duration = Duration::from_secs(1);

/// Something that happened to one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It was launched.
    Started {
        /// Its address, if it has a network.
        address: Option<Ipv4Addr>,
        /// The host's pid of its init.
        pid: u32,
    },
    /// It could not be launched.
    StartFailed(Trouble),
    /// Its process ended.
    Exited {
        /// How.
        exit: Exit,
        /// Its last log lines.
        log_tail: Vec<String>,
    },
    /// A check's verdict changed; the sentence says why it is not well.
    Health(Health, Option<Trouble>),
    /// It was found out why it will be killed.
    Verdict(Trouble),
    /// A stop was carried out: whether it needed SIGKILL.
    Stopped {
        /// Whether the grace ran out.
        killed: bool,
    },
    /// Its running container has this quota now.
    QuotaSet(Quota),
    /// Its running container cannot be given this quota; the one before is in force.
    QuotaRefused(Box<RefusedQuota>),
    /// A build ended.
    BuildEnded(Box<Result<Built, Trouble>>),
    /// All but its address is gone.
    Cleaned,
    /// All of it is gone.
    Destroyed,
    /// A step could not be done; it will be tried again.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Takes a spec in: new records, new desires, records that are no longer wanted.
pub fn take_spec(records: &mut Records, spec: &Spec, now: Moment) {
    for record in records.values_mut() {
        record.wanted = false;
    }
    for instance in &spec.instances {
        let record =
            records.entry(instance.id).or_insert_with(|| Record::new(Arc::new(instance.clone()), now));
        record.wanted = true;
        if record.spec.as_deref() != Some(instance) {
            record.spec = Some(Arc::new(instance.clone()));
        }
    }
}

/// Marks a step as begun. Steps that need nothing from the machine are done with this.
pub fn begin(record: &mut Record, step: Step, now: Moment) {
    record.retry_at = None;
    record.underway = match step {
        Step::Destroy(_) => Some(Underway::Destroy),
        Step::Clean(_) => Some(Underway::Clean),
        Step::Kill(..) => Some(Underway::Kill),
        Step::Quota(_) => Some(Underway::Quota),
        Step::Cancel(_) => Some(Underway::Cancel),
        Step::Stop(..) => {
            record.enter(Phase::Stopping, now);
            Some(Underway::Stop)
        }
        Step::Drain(_) => {
            record.enter(Phase::Draining { since: now.mono }, now);
            None
        }
        Step::Retire(_) => {
            record.enter(Phase::Exited, now);
            None
        }
        Step::Settle(_) => {
            become_well(record, now);
            None
        }
        Step::Start(_) => {
            begin_launch(record, now);
            Some(Underway::Start)
        }
        Step::Build(_) => {
            begin_launch(record, now);
            record.enter(running(now, Health::Up), now);
            Some(Underway::Build)
        }
    };
}

fn begin_launch(record: &mut Record, now: Moment) {
    record.launch += 1;
    if matches!(record.phase, Phase::BackingOff { .. }) {
        record.restarts += 1;
    }
    record.remains = Remains::Container;
    record.quota = record.spec.as_ref().map(|spec| spec.quota);
    record.refused = None;
    record.enter(Phase::Preparing, now);
}

fn running(now: Moment, health: Health) -> Phase {
    let well_since = (health == Health::Up).then_some(now.mono);
    Phase::Running { started: now.mono, health, well_since }
}

fn become_well(record: &mut Record, now: Moment) {
    if let Phase::Running { started, .. } = record.phase {
        record.enter(Phase::Running { started, health: Health::Up, well_since: Some(now.mono) }, now);
        record.trouble = None;
    }
}

/// Takes in what happened to the launch `launch` of an instance. Returns what is worth telling; the record is to be
/// forgotten after [`Event::Destroyed`].
pub fn apply(record: &mut Record, launch: u32, event: Event, now: Moment) -> Vec<(Option<Code>, String)> {
    if launch != record.launch {
        return Vec::new();
    }
    match event {
        Event::Started { address, pid } => {
            record.pid = Some(pid);
            started(record, address, now)
        }
        Event::StartFailed(trouble) => start_failed(record, trouble, now),
        Event::Exited { exit, log_tail } => exited(record, exit, log_tail, now),
        Event::Health(health, trouble) => health_changed(record, health, trouble, now),
        Event::Verdict(trouble) => {
            record.verdict = Some(trouble);
            Vec::new()
        }
        Event::Stopped { killed } => stopped(record, killed),
        Event::QuotaSet(quota) => quota::set(record, quota),
        Event::QuotaRefused(refused) => quota::refused(record, *refused),
        Event::BuildEnded(outcome) => build_ended(record, *outcome, now),
        Event::Cleaned => {
            record.underway = None;
            record.remains = Remains::Address;
            Vec::new()
        }
        Event::Destroyed => {
            record.underway = None;
            record.remains = Remains::Nothing;
            Vec::new()
        }
        Event::Refused { reason } => {
            record.underway = None;
            record.retry_at = Some(now.mono + RETRY);
            tracing::warn!(reason, state = ?record.state(), "a step was refused; it will be tried again");
            Vec::new()
        }
    }
}

fn started(record: &mut Record, address: Option<Ipv4Addr>, now: Moment) -> Vec<(Option<Code>, String)> {
    record.underway = None;
    record.address = address;
    record.verdict = None;
    // A one-off has no health of its own: it is well while it runs.
    let health = if record.is_service() { Health::Unknown } else { Health::Up };
    record.enter(running(now, health), now);
    let said = if record.restarts > 0 {
        format!("Started again (restart {})", record.restarts)
    } else {
        "Started".into()
    };
    vec![(None, said)]
}

fn start_failed(record: &mut Record, trouble: Trouble, now: Moment) -> Vec<(Option<Code>, String)> {
    record.underway = None;
    let told = vec![(Some(trouble.code), trouble.message.clone())];
    record.trouble = Some(trouble);
    fail(record, now);
    told
}

/// After an end that was not asked for: a service pauses, everything else is over.
fn fail(record: &mut Record, now: Moment) {
    if record.is_service() && record.should_run() {
        let doublings = record.failures.min(6);
        let pause = (BACK_OFF_MIN * 2u32.pow(doublings)).min(BACK_OFF_MAX);
        record.failures = record.failures.saturating_add(1);
        record.enter(Phase::BackingOff { until: now.mono + pause }, now);
    } else {
        record.enter(Phase::Exited, now);
    }
}

fn exited(
    record: &mut Record,
    exit: Exit,
    log_tail: Vec<String>,
    now: Moment,
) -> Vec<(Option<Code>, String)> {
    if !record.is_alive() {
        // Told twice: by whoever waited and by whoever stopped it.
        return Vec::new();
    }
    let exit = match &record.verdict {
        Some(verdict) if verdict.code == Code::R23 => Exit::TimedOut,
        _ => exit,
    };
    quota::end_step(record);
    record.out_of_memory += u32::from(exit == Exit::OutOfMemory);
    record.last_exit = Some(exit);
    record.pid = None;
    let Phase::Running { started, well_since, .. } = record.phase else {
        record.enter(Phase::Exited, now);
        return vec![(None, format!("Stopped: {}", sentence(exit)))];
    };
    if matches!(record.underway, Some(Underway::Kill)) {
        record.underway = None;
    }
    if well_since.is_some_and(|since| now.mono.saturating_sub(since) >= BACK_OFF_RESET) {
        record.failures = 0;
    }
    let ran = now.mono.saturating_sub(started);
    let verdict = record.verdict.take().map(|v| Trouble { log_tail: log_tail.clone(), ..v });
    let trouble = verdict.or_else(|| explain(record, exit, ran, well_since.is_some(), log_tail));
    let told = match &trouble {
        Some(trouble) => (Some(trouble.code), trouble.message.clone()),
        None => (None, format!("Process {}", sentence(exit))),
    };
    record.trouble = trouble;
    fail(record, now);
    vec![told]
}

/// Why an end is a trouble, if it is one.
fn explain(
    record: &Record,
    exit: Exit,
    ran: Duration,
    was_well: bool,
    log_tail: Vec<String>,
) -> Option<Trouble> {
    let ended = sentence(exit);
    if exit == Exit::OutOfMemory {
        let quota = record.quota.or_else(|| record.spec.as_ref().map(|s| s.quota));
        let max = quota.map_or(0, |quota| quota.memory_bytes.max) >> 20;
        let message =
            format!("{} ran out of its {max} MiB of memory and was ended as a whole", record.label());
        return Some(Trouble { code: Code::R14, message, log_tail });
    }
    if !record.is_service() {
        let message = format!("{} {ended}", record.label());
        return (exit != Exit::Code(0)).then_some(Trouble { code: Code::R18, message, log_tail });
    }
    if exit == Exit::Code(127) && !was_well {
        let message = format!("{} {ended}: the shell did not find its command in the image", record.label());
        return Some(Trouble { code: Code::R19, message, log_tail });
    }
    let waits = record.process().and_then(|p| p.port).is_some() && !was_well;
    if ran < AT_ONCE && (waits || !was_well) {
        let missed = if waits { ", before it bound $PORT" } else { "" };
        let message =
            format!("{} {ended} {:.1} s after its start{missed}", record.label(), ran.as_secs_f64());
        return Some(Trouble { code: Code::R16, message, log_tail });
    }
    let message = format!("{} {ended} after {} s", record.label(), ran.as_secs());
    Some(Trouble { code: Code::R18, message, log_tail })
}

/// "exited with status 1".
pub fn sentence(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with status {code}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
        Exit::OutOfMemory => "ran out of memory".to_owned(),
        Exit::TimedOut => "ran longer than it may and was killed".to_owned(),
        Exit::Unknown => "ended while nobody watched".to_owned(),
    }
}

fn health_changed(
    record: &mut Record,
    health: Health,
    trouble: Option<Trouble>,
    now: Moment,
) -> Vec<(Option<Code>, String)> {
    let Phase::Running { started, health: before, well_since } = record.phase else { return Vec::new() };
    match (before, health) {
        (Health::Up, Health::Down) => {
            record.enter(Phase::Running { started, health: Health::Down, well_since }, now);
            let told = trouble.as_ref().map(|t| (Some(t.code), t.message.clone()));
            record.trouble = trouble;
            told.into_iter().collect()
        }
        (Health::Unknown | Health::Down, Health::Up) => {
            become_well(record, now);
            let took = now.mono.saturating_sub(started).as_secs_f64();
            let said = if before == Health::Unknown {
                format!("Healthy after {took:.1} s")
            } else {
                "Healthy again".into()
            };
            vec![(None, said)]
        }
        _ => Vec::new(),
    }
}

fn stopped(record: &mut Record, killed: bool) -> Vec<(Option<Code>, String)> {
    if record.underway == Some(Underway::Stop) {
        record.underway = None;
    }
    if !killed {
        return Vec::new();
    }
    let grace = record.process().map_or(0, |p| p.stop_grace_seconds);
    let message = format!("{} did not end within {grace} s of SIGTERM and was killed", record.label());
    record.trouble = Some(Trouble { code: Code::R12, message: message.clone(), log_tail: Vec::new() });
    vec![(Some(Code::R12), message)]
}

fn build_ended(
    record: &mut Record,
    outcome: Result<Built, Trouble>,
    now: Moment,
) -> Vec<(Option<Code>, String)> {
    record.underway = None;
    record.enter(Phase::Exited, now);
    match outcome {
        Ok(built) => {
            record.last_exit = Some(Exit::Code(0));
            record.built = Some(built);
        }
        Err(trouble) => {
            record.last_exit = Some(Exit::Code(1));
            record.trouble = Some(trouble);
        }
    }
    // How it went is in the report; the control plane says so, as it knows whether the build begins again.
    Vec::new()
}

/// The happening for a sentence about an instance.
pub fn happening(id: InstanceId, record: &Record, (code, message): (Option<Code>, String)) -> Happening {
    let mut facts = BTreeMap::new();
    if let Some(spec) = &record.spec {
        facts.insert("release".to_owned(), spec.release.to_string());
        facts.insert("state".to_owned(), format!("{:?}", record.state()).to_lowercase());
    }
    Happening {
        app: record.spec.as_ref().map(|s| s.app),
        instance: Some(id),
        process: record.label(),
        code,
        message,
        facts,
    }
}

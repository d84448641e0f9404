//! Carries steps out: each in a task of its own, its outcome told to the loop as an event. Also the two things that go on
//! beside steps, per running instance: waiting for its end and checking its health. Decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::id::InstanceId;
use berth_wire::report::{Exit, RefusedQuota, Trouble};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::machine::{AsyncTell, Machine, NotSet, Target};
use super::plan::Step;
use super::record::{Health, Phase, Record, Records, Remains};
use super::transition::Event;

/// Removals at a time: each is mostly waiting for the kernel's RCU grace periods; sixteen keep two cores usable.
const REMOVALS_AT_ONCE: usize = 16;

/// SIGKILL's number: how a process ends that ignored SIGTERM.
const SIGKILL: u8 = 9;

/// An event with its address.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) id: InstanceId,
    pub(super) launch: u32,
    pub(super) event: Event,
}

/// Runs the tasks.
pub(super) struct Executor<M> {
    machine: Arc<M>,
    tell: mpsc::Sender<Told>,
    removals: Arc<Semaphore>,
    builds: BTreeMap<InstanceId, CancellationToken>,
    watches: BTreeMap<InstanceId, Watch>,
}

/// What goes on beside the steps while an instance runs.
struct Watch {
    launch: u32,
    _end: AbortOnDropHandle<()>,
    health: Option<AbortOnDropHandle<()>>,
}

/// Tells the loop about one launch of one instance.
#[derive(Clone)]
struct Teller {
    id: InstanceId,
    launch: u32,
    tell: mpsc::Sender<Told>,
}

impl Teller {
    async fn say(&self, event: Event) {
        // Nobody listens only when the loop has ended, and then nothing matters any more.
        let _ = self.tell.send(Told { id: self.id, launch: self.launch, event }).await;
    }
}

impl AsyncTell for Teller {
    async fn tell(&self, health: Health, trouble: Option<Trouble>) {
        self.say(Event::Health(health, trouble)).await;
    }
}

impl<M: Machine> Executor<M> {
    pub(super) fn new(machine: Arc<M>, tell: mpsc::Sender<Told>) -> Self {
        Self {
            machine,
            tell,
            removals: Arc::new(Semaphore::new(REMOVALS_AT_ONCE)),
            builds: BTreeMap::new(),
            watches: BTreeMap::new(),
        }
    }

    fn teller(&self, id: InstanceId, launch: u32) -> Teller {
        Teller { id, launch, tell: self.tell.clone() }
    }

    /// Starts the step's task; steps that need nothing of the machine have none.
    pub(super) fn execute(&mut self, step: Step, record: &Record) {
        let (id, teller) = (step.instance(), self.teller(step.instance(), record.launch));
        match step {
            Step::Drain(_) | Step::Retire(_) | Step::Settle(_) => {}
            Step::Start(_) => self.start(teller, record),
            Step::Build(_) => self.build(teller, record),
            Step::Cancel(_) => {
                if let Some(build) = self.builds.get(&id) {
                    build.cancel();
                }
            }
            Step::Kill(_, why) => self.kill(teller, record, why),
            Step::Quota(_) => self.set_quota(teller, record),
            Step::Stop(_, grace) => self.stop(teller, grace),
            Step::Clean(_) => self.remove(teller, false),
            Step::Destroy(_) => self.remove(teller, true),
        }
    }

    /// Forgets an instance.
    pub(super) fn forget(&mut self, id: InstanceId) {
        self.builds.remove(&id);
        self.watches.remove(&id);
    }

    fn start(&self, teller: Teller, record: &Record) {
        let (Some(spec), machine) = (record.spec.clone(), self.machine.clone()) else { return };
        tokio::spawn(async move {
            match machine.start(spec).await {
                Ok(launched) => {
                    teller.say(Event::Started { address: launched.address, pid: launched.pid }).await;
                }
                Err(trouble) => teller.say(Event::StartFailed(trouble)).await,
            }
        });
    }

    fn build(&mut self, teller: Teller, record: &Record) {
        let (Some(spec), machine) = (record.spec.clone(), self.machine.clone()) else { return };
        let cancel = CancellationToken::new();
        self.builds.insert(teller.id, cancel.clone());
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = machine.build(spec) => outcome,
                () = cancel.cancelled() => {
                    let message = "The build was told to end before it was done".to_owned();
                    Err(Trouble { code: Code::B18, message, log_tail: Vec::new() })
                }
            };
            teller.say(Event::BuildEnded(Box::new(outcome))).await;
        });
    }

    fn kill(&self, teller: Teller, record: &Record, why: super::plan::Why) {
        let machine = self.machine.clone();
        let target = target_of(record);
        tokio::spawn(async move {
            if let Some(target) = target {
                teller.say(Event::Verdict(machine.verdict(target, why).await)).await;
            }
            // The end itself is told by whoever waits for it.
            if let Err(reason) = machine.stop(teller.id, Duration::ZERO).await {
                teller.say(Event::Refused { reason }).await;
            }
        });
    }

    fn set_quota(&self, teller: Teller, record: &Record) {
        let Some(quota) = record.spec.as_ref().map(|spec| spec.quota) else { return };
        let machine = self.machine.clone();
        tokio::spawn(async move {
            let event = match machine.set_quota(teller.id, quota).await {
                Ok(()) => Event::QuotaSet(quota),
                Err(NotSet::Never(reason)) => Event::QuotaRefused(Box::new(RefusedQuota { quota, reason })),
                Err(NotSet::Yet(reason)) => Event::Refused { reason },
            };
            teller.say(event).await;
        });
    }

    fn stop(&self, teller: Teller, grace: Duration) {
        let machine = self.machine.clone();
        tokio::spawn(async move {
            match machine.stop(teller.id, grace).await {
                Ok(exit) => {
                    // The same end may be told twice; the second time nothing changes.
                    teller.say(Event::Exited { exit, log_tail: Vec::new() }).await;
                    teller
                        .say(Event::Stopped { killed: exit == Exit::Signal(SIGKILL) && !grace.is_zero() })
                        .await;
                }
                Err(reason) => teller.say(Event::Refused { reason }).await,
            }
        });
    }

    fn remove(&self, teller: Teller, release_address: bool) {
        let (machine, removals) = (self.machine.clone(), self.removals.clone());
        tokio::spawn(async move {
            let _permit = removals.acquire_owned().await;
            let event = match machine.remove(teller.id, release_address).await {
                Err(reason) => Event::Refused { reason },
                Ok(()) if release_address => Event::Destroyed,
                Ok(()) => Event::Cleaned,
            };
            teller.say(event).await;
        });
    }

    /// Makes what goes on beside the steps match the records: repeating it is harmless.
    pub(super) fn watch(&mut self, records: &Records) {
        self.watches.retain(|id, watch| {
            records.get(id).is_some_and(|r| r.is_alive() && r.launch == watch.launch && !r.is_build())
        });
        for (&id, record) in records {
            if !record.is_alive() || record.is_build() || record.remains != Remains::Container {
                continue;
            }
            if !self.watches.contains_key(&id) {
                let watch = Watch { launch: record.launch, _end: self.watch_end(id, record), health: None };
                self.watches.insert(id, watch);
            }
            let checking = match record.phase {
                Phase::Running { health, .. } if record.is_service() => Some(health),
                _ => None,
            };
            let running = self.watches.get(&id).is_some_and(|w| w.health.is_some());
            match checking {
                Some(health) if !running => {
                    let task = self.watch_health(id, record, health);
                    if let Some(watch) = self.watches.get_mut(&id) {
                        watch.health = task;
                    }
                }
                None if running => {
                    if let Some(watch) = self.watches.get_mut(&id) {
                        watch.health = None;
                    }
                }
                _ => {}
            }
        }
    }

    fn watch_end(&self, id: InstanceId, record: &Record) -> AbortOnDropHandle<()> {
        let (machine, teller, spec) =
            (self.machine.clone(), self.teller(id, record.launch), record.spec.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let exit = machine.wait(id).await;
            let log_tail = match spec {
                Some(spec) => machine.log_tail(spec).await,
                None => Vec::new(),
            };
            teller.say(Event::Exited { exit, log_tail }).await;
        }))
    }

    fn watch_health(&self, id: InstanceId, record: &Record, from: Health) -> Option<AbortOnDropHandle<()>> {
        let target = target_of(record)?;
        record.process()?.port?;
        let (machine, teller) = (self.machine.clone(), self.teller(id, record.launch));
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            match machine.check(target, from, teller).await {}
        })))
    }
}

fn target_of(record: &Record) -> Option<Target> {
    let spec = record.spec.clone()?;
    let address = record.address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
    Some(Target { spec, address, pid: record.pid })
}

//! The reconciler: makes the host match its spec. Observe -> plan (pure) -> steps -> execute -> report.
//!
//! One loop owns all records. Everything that wakes it (a spec, an event, the edge's word, a deadline, the timer) leads to the
//! same pass; a wake-up carries nothing but itself or one event. What takes time runs in tasks and comes back as an event.
//!
//! | module | |
//! |---|---|
//! | [`record`] | what is known about an instance |
//! | [`plan`] | what to do (pure) |
//! | [`transition`] | how a record changes (pure) |
//! | [`routing`] | the edge's table (pure) |
//! | [`execute`] | does a step in a task |
//! | [`machine`] | what is needed of the machine |
//! | [`memory`] | what must survive the agent |

mod execute;
pub mod machine;
pub mod memory;
pub mod on_host;

pub mod plan;
mod quota;
pub mod record;
pub mod routing;
pub mod transition;

#[cfg(test)]
mod loop_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_wire::id::InstanceId;
use berth_wire::report::InstanceReport;
use berth_wire::spec::{Generation, InstanceSpec, Spec};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::journal::Journal;
use execute::{Executor, Told};
use machine::{Edge, Machine};
use memory::{Memories, Memory};
use plan::{Step, plan};
use record::{Moment, Record, Records, Remains};
use transition::Event;

/// A pass happens at least this often, so that anything missed is made good soon: one pass over 1,000 records takes less than a millisecond.
const PASS_EVERY: Duration = Duration::from_secs(5);

/// Steps that need nothing of the machine enable others at once (drained -> stop); the longest chain is retire -> clean -> destroy.
const ROUNDS_MAX: usize = 8;

/// Events that wait for the loop: one of each of 1,000 instances. A task that finds it full waits.
const EVENTS_WAITING_MAX: usize = 1_024;

/// What everybody else may know of the reconciler's state, replaced as a whole after each pass.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The spec that is being made true.
    pub generation: Option<Generation>,
    /// Every instance.
    pub instances: Vec<Seen>,
}

/// One instance, as everybody else may see it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What it should be, where known.
    pub spec: Option<Arc<InstanceSpec>>,
    /// What it is doing.
    pub report: InstanceReport,
    /// How often it ran out of memory.
    pub out_of_memory: u32,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// Whether its container may have processes.
    pub alive: bool,
}

/// The loop's state.
pub struct Reconciler<M, E> {
    machine: Arc<M>,
    edge: E,
    specs: watch::Receiver<Option<Arc<Spec>>>,
    journal: Arc<Journal>,
    records: Records,
    memories: Memories,
    executor: Executor<M>,
    told: mpsc::Receiver<Told>,
    shown: watch::Sender<Arc<Snapshot>>,
    began: (Instant, Timestamp),
    taken: Option<Generation>,
}

impl<M: Machine, E: Edge> Reconciler<M, E> {
    /// A reconciler that has looked at nothing yet.
    pub fn new(
        machine: Arc<M>,
        edge: E,
        specs: watch::Receiver<Option<Arc<Spec>>>,
        journal: Arc<Journal>,
        memories: Memories,
    ) -> Self {
        let (tell, told) = mpsc::channel(EVENTS_WAITING_MAX);
        Self {
            executor: Executor::new(machine.clone(), tell),
            machine,
            edge,
            specs,
            journal,
            records: Records::new(),
            memories,
            told,
            shown: watch::Sender::new(Arc::default()),
            began: (Instant::now(), Timestamp::now()),
            taken: None,
        }
    }

    /// What is seen from outside, now and after each change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shown.subscribe()
    }

    fn now(&self) -> Moment {
        let mono = self.began.0.elapsed();
        Moment { wall: Timestamp::now(), mono }
    }

    /// Adopts what runs, then reconciles for ever.
    ///
    /// # Errors
    /// The machine does not say what runs on it: without knowing that, nothing may be started.
    pub async fn run(mut self) -> Result<std::convert::Infallible, String> {
        self.adopt().await?;
        let mut wake_at = self.pass();
        loop {
            let now = self.now().mono;
            let wait = wake_at.map_or(PASS_EVERY, |at| at.saturating_sub(now).min(PASS_EVERY));
            let mut told = Vec::new();
            tokio::select! {
                changed = self.specs.changed() => changed.map_err(|_| "the ledger was closed".to_owned())?,
                _ = self.told.recv_many(&mut told, EVENTS_WAITING_MAX) => {}
                () = self.edge.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
            for told in told {
                self.take_in(told);
            }
            wake_at = self.pass();
        }
    }

    /// Makes records of what the machine and the memories know.
    async fn adopt(&mut self) -> Result<(), String> {
        let found = self.machine.adopt().await?;
        let spec = self.specs.borrow_and_update().clone();
        let now = self.now();
        let named = |id| spec.iter().flat_map(|s| &s.instances).find(|i| i.id == id).cloned();
        let mut ids: BTreeSet<InstanceId> = self.memories.ids().into_iter().collect();
        ids.extend(found.iter().map(|f| f.id));
        let mut adopted = 0;
        for id in ids {
            let found = found.iter().find(|f| f.id == id);
            let spec = named(id).map(Arc::new);
            if spec.is_none() && found.is_none() {
                self.memories.remove(id);
                continue;
            }
            let blank = spec.map_or_else(|| Record::unknown(now), |s| Record::new(s, now));
            let process = found.and_then(|f| f.process);
            // A build's container is not adopted: its runner was the agent.
            let alive = process.is_some() && !blank.is_build();
            let remains = if found.is_some() { Remains::Container } else { Remains::Nothing };
            let mut record = memory::recall(blank, self.memories.get(id).cloned(), remains, alive, now);
            record.address = process.and_then(|p| p.address);
            record.pid = process.map(|p| p.pid);
            adopted += usize::from(alive);
            self.records.insert(id, record);
        }
        tracing::info!(adopted, known = self.records.len(), "took over what is on this host");
        Ok(())
    }

    fn take_in(&mut self, told: Told) {
        let now = self.now();
        let Some(record) = self.records.get_mut(&told.id) else { return };
        if told.event == Event::Destroyed && told.launch == record.launch {
            self.records.remove(&told.id);
            self.memories.remove(told.id);
            self.executor.forget(told.id);
            return;
        }
        for said in transition::apply(record, told.launch, told.event, now) {
            let happening = transition::happening(told.id, record, said);
            tracing::info!(instance = %told.id, process = happening.process, code = ?happening.code, "{}", happening.message);
            self.journal.append(now.wall, happening);
        }
    }

    /// One pass. Says when the next deadline is.
    fn pass(&mut self) -> Option<Duration> {
        let spec = self.specs.borrow_and_update().clone();
        // Before the first spec ever nothing is wanted or unwanted: touch nothing.
        let spec = spec?;
        if self.taken != Some(spec.generation) {
            let now = self.now();
            transition::take_spec(&mut self.records, &spec, now);
            self.taken = Some(spec.generation);
        }
        let mut planned = plan(&self.records, &self.edge, self.now());
        for _ in 0..ROUNDS_MAX {
            if planned.steps.is_empty() {
                break;
            }
            for step in std::mem::take(&mut planned.steps) {
                self.do_step(step);
            }
            planned = plan(&self.records, &self.edge, self.now());
        }
        if let Err(error) =
            self.edge.publish(routing::domains(&spec.routes, &self.records, &planned.routable))
        {
            tracing::error!(error, "could not publish the routes; the edge keeps the last ones");
        }
        self.remember();
        self.executor.watch(&self.records);
        self.show(spec.generation);
        // More steps than rounds: go on at once.
        if planned.steps.is_empty() { planned.wake_at } else { Some(Duration::ZERO) }
    }

    fn do_step(&mut self, step: Step) {
        let (id, now) = (step.instance(), self.now());
        let Some(record) = self.records.get_mut(&id) else { return };
        transition::begin(record, step, now);
        // A one-off is written down before it is launched: it would rather not run than run twice.
        if matches!(step, Step::Start(_) | Step::Build(_))
            && let Err(error) = self.memories.put(id, Memory::of(record))
        {
            let reason = format!("could not write down that it will be launched: {error}");
            transition::apply(record, record.launch, Event::Refused { reason }, now);
            return;
        }
        self.executor.execute(step, record);
    }

    fn remember(&mut self) {
        for (&id, record) in &self.records {
            if let Err(error) = self.memories.put(id, Memory::of(record)) {
                tracing::error!(%error, instance = %id, "could not write down the state of an instance");
            }
        }
    }

    fn show(&self, generation: Generation) {
        let seen = |(&id, record): (&InstanceId, &Record)| Seen {
            spec: record.spec.clone(),
            report: record.report(id),
            out_of_memory: record.out_of_memory,
            address: record.address,
            alive: record.is_alive() && record.remains == Remains::Container,
        };
        let instances: Vec<Seen> = self.records.iter().map(seen).collect();
        self.shown.send_if_modified(|shown| {
            let same = shown.generation == Some(generation)
                && shown.instances.len() == instances.len()
                && shown
                    .instances
                    .iter()
                    .zip(&instances)
                    .all(|(a, b)| a.report == b.report && a.alive == b.alive);
            if !same {
                *shown = Arc::new(Snapshot { generation: Some(generation), instances });
            }
            !same
        });
    }
}

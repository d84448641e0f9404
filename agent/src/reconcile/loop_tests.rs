//! The loop itself, with a played machine and edge: adoption, start, crash, drain, restart of the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::edge::Backend;
use berth_wire::id::{AppId, HostId, InstanceId, TeamId};
use berth_wire::image::{HealthCheck, ImageRef};
use berth_wire::name::Domain;
use berth_wire::quota::{Bounds, MIB, Quota};
use berth_wire::report::{Built, Exit, InstanceState, Trouble};
use berth_wire::spec::{Desired, Generation, InstanceSpec, ProcessSpec, Route, Spec, Work};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::machine::{AsyncTell, Edge, Found, Launched, Machine, NotSet, Target};
use super::memory::Memories;
use super::plan::{EdgeView, Why};
use super::record::Health;
use super::{Reconciler, Snapshot};
use crate::journal::Journal;

fn id(n: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(n))
}

fn web(n: u128, desired: Desired) -> InstanceSpec {
    let process = ProcessSpec {
        image: ImageRef { repository: "apps/a".into(), digest: Digest::of(b"") },
        argv: vec!["/bin/app".into()],
        env: BTreeMap::new(),
        port: Some(5000),
        health: HealthCheck::default(),
        stop_grace_seconds: 30,
        run_seconds_max: 60,
        attached: None,
    };
    InstanceSpec {
        id: id(n),
        team: TeamId(Uuid::nil()),
        app: AppId(Uuid::nil()),
        app_name: "shop".parse().unwrap(),
        process: "web".parse().unwrap(),
        index: u32::try_from(n).unwrap(),
        release: 1,
        desired,
        work: Work::Service(process),
        quota: Quota::default(),
    }
}

fn spec(number: u64, instances: Vec<InstanceSpec>) -> Arc<Spec> {
    let route = Route {
        domain: "shop.localhost".parse().unwrap(),
        app: AppId(Uuid::nil()),
        app_name: "shop".parse().unwrap(),
        instances: instances.iter().map(|i| i.id).collect(),
    };
    let generation = Generation { epoch: 1, number };
    Arc::new(Spec { host: HostId(Uuid::nil()), generation, instances, routes: vec![route] })
}

/// A machine whose containers are entries of a map.
#[derive(Default)]
struct Played {
    running: Mutex<BTreeMap<InstanceId, watch::Sender<Option<Exit>>>>,
    refuse: Mutex<BTreeSet<InstanceId>>,
    stuck: Mutex<BTreeSet<InstanceId>>,
    starts: Mutex<Vec<InstanceId>>,
    done: Mutex<Vec<String>>,
}

impl Played {
    fn end(&self, id: InstanceId, exit: Exit) {
        if let Some(container) = self.running.lock().unwrap().get(&id) {
            container.send_replace(Some(exit));
        }
    }

    fn said(&self, what: String) {
        self.done.lock().unwrap().push(what);
    }
}

impl Machine for Played {
    async fn adopt(&self) -> Result<Vec<Found>, String> {
        let process = Some(Launched { address: Some(Ipv4Addr::LOCALHOST), pid: 1 });
        Ok(self.running.lock().unwrap().keys().map(|&id| Found { id, process, exit: None }).collect())
    }

    async fn start(&self, spec: Arc<InstanceSpec>) -> Result<Launched, Trouble> {
        if self.stuck.lock().unwrap().contains(&spec.id) {
            std::future::pending::<()>().await;
        }
        if self.refuse.lock().unwrap().contains(&spec.id) {
            return Err(Trouble { code: Code::R20, message: "played".into(), log_tail: vec![] });
        }
        self.starts.lock().unwrap().push(spec.id);
        self.running.lock().unwrap().insert(spec.id, watch::Sender::new(None));
        Ok(Launched { address: Some(Ipv4Addr::LOCALHOST), pid: 1 })
    }

    async fn build(&self, _spec: Arc<InstanceSpec>) -> Result<Built, Trouble> {
        std::future::pending().await
    }

    async fn set_quota(&self, id: InstanceId, quota: Quota) -> Result<(), NotSet> {
        let mib = quota.memory_bytes.max >> 20;
        self.said(format!("quota {} {mib}", id.0.as_u128()));
        if mib < 64 { Err(NotSet::Never("it uses 64 MiB of memory".into())) } else { Ok(()) }
    }

    async fn wait(&self, id: InstanceId) -> Exit {
        let receiver = self.running.lock().unwrap().get(&id).map(watch::Sender::subscribe);
        let Some(mut receiver) = receiver else { return Exit::Unknown };
        let ended = receiver.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.unwrap_or(Exit::Unknown)
    }

    async fn stop(&self, id: InstanceId, grace: Duration) -> Result<Exit, String> {
        self.said(format!("stop {} {}", id.0.as_u128(), grace.as_secs()));
        self.end(id, Exit::Signal(15));
        Ok(Exit::Signal(15))
    }

    async fn verdict(&self, _target: Target, _why: Why) -> Trouble {
        Trouble { code: Code::R10, message: String::new(), log_tail: vec![] }
    }

    async fn remove(&self, id: InstanceId, release_address: bool) -> Result<(), String> {
        self.said(format!("remove {} {release_address}", id.0.as_u128()));
        self.running.lock().unwrap().remove(&id);
        Ok(())
    }

    async fn check(&self, _target: Target, from: Health, tell: impl AsyncTell) -> Infallible {
        if from != Health::Up {
            tell.tell(Health::Up, None).await;
        }
        std::future::pending().await
    }

    async fn log_tail(&self, _spec: Arc<InstanceSpec>) -> Vec<String> {
        vec!["last words".into()]
    }
}

/// An edge that acknowledges at once, and remembers every table.
#[derive(Clone, Default)]
struct PlayedEdge {
    tables: Arc<Mutex<Vec<BTreeSet<InstanceId>>>>,
    busy: Arc<Mutex<BTreeSet<InstanceId>>>,
    word: Arc<Notify>,
}

impl EdgeView for PlayedEdge {
    fn is_free_of(&self, id: InstanceId) -> bool {
        let routed = self.tables.lock().unwrap().last().is_some_and(|table| table.contains(&id));
        !routed && !self.busy.lock().unwrap().contains(&id)
    }

    fn may_stop(&self, id: InstanceId) -> bool {
        self.is_free_of(id)
    }
}

impl Edge for PlayedEdge {
    fn publish(&self, domains: BTreeMap<Domain, Backend>) -> Result<(), String> {
        let table = domains.values().flat_map(|b| &b.upstreams).map(|u| u.instance).collect();
        let mut tables = self.tables.lock().unwrap();
        if tables.last() != Some(&table) {
            tables.push(table);
            self.word.notify_one();
        }
        Ok(())
    }

    async fn changed(&mut self) {
        self.word.notified().await;
    }
}

struct Agent {
    specs: watch::Sender<Option<Arc<Spec>>>,
    seen: watch::Receiver<Arc<Snapshot>>,
    journal: Arc<Journal>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    fn start(
        dir: &std::path::Path,
        machine: &Arc<Played>,
        edge: &PlayedEdge,
        first: Option<Arc<Spec>>,
    ) -> Self {
        let specs = watch::Sender::new(first);
        let journal = Arc::new(Journal::open(dir, "b").unwrap());
        let memories = Memories::open(dir).unwrap();
        let reconciler =
            Reconciler::new(machine.clone(), edge.clone(), specs.subscribe(), journal.clone(), memories);
        let seen = reconciler.subscribe();
        let task = tokio::spawn(async move {
            let Err(error) = reconciler.run().await;
            tracing::debug!(error, "the loop ended");
        });
        Self { specs, seen, journal, task }
    }

    async fn until(&mut self, what: impl Fn(&Snapshot) -> bool) {
        let seen = tokio::time::timeout(Duration::from_secs(20), self.seen.wait_for(|s| what(s))).await;
        drop(seen.expect("it must happen within 20 s").unwrap());
    }

    async fn until_state(&mut self, n: u128, state: InstanceState) {
        self.until(|s| s.instances.iter().any(|i| i.report.id == id(n) && i.report.state == state)).await;
    }
}

#[tokio::test]
async fn an_instance_must_come_up_crash_come_up_again_drain_and_leave_nothing() {
    let (dir, machine, edge) =
        (tempfile::tempdir().unwrap(), Arc::new(Played::default()), PlayedEdge::default());
    let mut agent = Agent::start(dir.path(), &machine, &edge, Some(spec(1, vec![web(1, Desired::Run)])));
    agent.until_state(1, InstanceState::Healthy).await;
    machine.end(id(1), Exit::Code(3));
    agent.until_state(1, InstanceState::BackingOff).await;
    agent.until_state(1, InstanceState::Healthy).await;
    assert_eq!(agent.seen.borrow().instances[0].report.restarts, 1);
    agent.specs.send_replace(Some(spec(2, vec![web(1, Desired::Drain)])));
    agent.until_state(1, InstanceState::Exited).await;
    agent.specs.send_replace(Some(spec(3, vec![])));
    agent.until(|s| s.instances.is_empty() && s.generation.is_some_and(|g| g.number == 3)).await;
    let done = machine.done.lock().unwrap().clone();
    assert_eq!(done, ["remove 1 false", "stop 1 30", "remove 1 false", "remove 1 true"]);
    let crash =
        agent.journal.pending(jiff::Timestamp::UNIX_EPOCH).into_iter().find(|e| e.code == Some(Code::R18));
    assert!(crash.is_some_and(|e| e.message.contains("status 3") && e.process == "web.1"));
    assert_eq!(std::fs::read_dir(dir.path().join("instances")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_new_quota_must_be_given_to_what_runs_and_a_refusal_be_told_once() {
    let (dir, machine, edge) =
        (tempfile::tempdir().unwrap(), Arc::new(Played::default()), PlayedEdge::default());
    let with = |number, mib: u64| {
        let memory_bytes = Bounds::new(16 * MIB, mib * MIB);
        let quota = Quota { memory_bytes, ..Quota::default() };
        spec(number, vec![InstanceSpec { quota, ..web(1, Desired::Run) }])
    };
    let in_force = |s: &Snapshot| s.instances.first()?.report.quota.map(|q| q.memory_bytes.max / MIB);
    let mut agent = Agent::start(dir.path(), &machine, &edge, Some(with(1, 512)));
    agent.until_state(1, InstanceState::Healthy).await;
    assert_eq!(in_force(&agent.seen.borrow()), Some(512));
    agent.specs.send_replace(Some(with(2, 1_024)));
    agent.until(|s| in_force(s) == Some(1_024)).await;
    agent.specs.send_replace(Some(with(3, 32)));
    agent.until(|s| s.instances[0].report.refused.is_some()).await;
    assert_eq!(in_force(&agent.seen.borrow()), Some(1_024));
    // Neither another pass nor another agent asks again for what was refused.
    agent.task.abort();
    let mut again = Agent::start(dir.path(), &machine, &edge, Some(with(3, 32)));
    again.until_state(1, InstanceState::Healthy).await;
    again.specs.send_replace(Some(with(4, 256)));
    again.until(|s| in_force(s) == Some(256) && s.instances[0].report.refused.is_none()).await;
    assert_eq!(*machine.done.lock().unwrap(), ["quota 1 1024", "quota 1 32", "quota 1 256"]);
    assert_eq!(machine.starts.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn one_start_that_hangs_must_not_hold_up_the_others() {
    let (dir, machine, edge) =
        (tempfile::tempdir().unwrap(), Arc::new(Played::default()), PlayedEdge::default());
    machine.stuck.lock().unwrap().insert(id(1));
    let both = spec(1, vec![web(1, Desired::Run), web(2, Desired::Run)]);
    let mut agent = Agent::start(dir.path(), &machine, &edge, Some(both));
    agent.until_state(2, InstanceState::Healthy).await;
    agent.until_state(1, InstanceState::Preparing).await;
}

#[tokio::test]
async fn a_new_agent_must_adopt_without_a_start_or_a_gap_in_the_routes() {
    let (dir, machine, edge) =
        (tempfile::tempdir().unwrap(), Arc::new(Played::default()), PlayedEdge::default());
    let wanted = spec(1, vec![web(1, Desired::Run)]);
    let mut agent = Agent::start(dir.path(), &machine, &edge, Some(wanted.clone()));
    agent.until_state(1, InstanceState::Healthy).await;
    agent.task.abort();
    let before = edge.tables.lock().unwrap().len();
    let mut again = Agent::start(dir.path(), &machine, &edge, Some(wanted));
    again.until_state(1, InstanceState::Healthy).await;
    assert_eq!(machine.starts.lock().unwrap().len(), 1);
    assert!(
        edge.tables.lock().unwrap()[before..].iter().all(|table| table.contains(&id(1))),
        "a gap in the routes"
    );
}

#[tokio::test]
async fn what_no_spec_names_must_be_removed_but_only_once_there_is_a_spec() {
    let (dir, machine, edge) =
        (tempfile::tempdir().unwrap(), Arc::new(Played::default()), PlayedEdge::default());
    machine.running.lock().unwrap().insert(id(7), watch::Sender::new(None));
    let mut agent = Agent::start(dir.path(), &machine, &edge, None);
    agent.specs.send_replace(Some(spec(1, vec![])));
    agent.until(|s| s.generation.is_some() && s.instances.is_empty()).await;
    assert_eq!(machine.done.lock().unwrap().last().unwrap(), "remove 7 true");
}

#[tokio::test]
async fn what_cannot_be_launched_must_back_off_with_its_reason() {
    let (dir, machine, edge) =
        (tempfile::tempdir().unwrap(), Arc::new(Played::default()), PlayedEdge::default());
    machine.refuse.lock().unwrap().insert(id(1));
    let mut agent = Agent::start(dir.path(), &machine, &edge, Some(spec(1, vec![web(1, Desired::Run)])));
    agent.until_state(1, InstanceState::BackingOff).await;
    let trouble = agent.seen.borrow().instances[0].report.trouble.clone();
    assert_eq!(trouble.map(|t| t.code), Some(Code::R20));
    machine.refuse.lock().unwrap().clear();
    agent.until_state(1, InstanceState::Healthy).await;
}

//! The pure core against a simulated machine and edge: whatever happens in whatever order, the invariants hold and it converges.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::id::{AppId, HostId, InstanceId, TeamId};
use berth_wire::image::{HealthCheck, ImageRef};
use berth_wire::quota::Quota;
use berth_wire::report::{Exit, InstanceState, Trouble};
use berth_wire::spec::{Desired, Generation, InstanceSpec, ProcessSpec, Spec, Work};
use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::plan::{EdgeView, Step, plan};
use super::record::{Health, Moment, Records, Underway};
use super::transition::{Event, apply, begin, take_spec};

fn id(n: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(n))
}

fn process(port: Option<u16>) -> ProcessSpec {
    ProcessSpec {
        image: ImageRef { repository: "apps/a".into(), digest: Digest::of(b"") },
        argv: vec!["/bin/true".into()],
        env: BTreeMap::new(),
        port,
        health: HealthCheck::default(),
        stop_grace_seconds: 30,
        run_seconds_max: 60,
    }
}

fn instance(n: u128, work: Work, desired: Desired) -> InstanceSpec {
    InstanceSpec {
        id: id(n),
        team: TeamId(Uuid::nil()),
        app: AppId(Uuid::nil()),
        app_name: "shop".parse().unwrap(),
        process: "web".parse().unwrap(),
        index: 1,
        release: 1,
        desired,
        work,
        quota: Quota::default(),
    }
}

fn web(n: u128) -> InstanceSpec {
    instance(n, Work::Service(process(Some(5000))), Desired::Run)
}

/// The machine and the edge, played.
#[derive(Default)]
struct World {
    records: Records,
    now: Duration,
    /// Running containers.
    containers: BTreeMap<InstanceId, u32>,
    /// Instances that hold an address.
    addresses: BTreeMap<InstanceId, ()>,
    /// What the edge's table in force has.
    table: Vec<InstanceId>,
    /// What was last published.
    published: Vec<InstanceId>,
    in_flight: Vec<InstanceId>,
    begun: Vec<Step>,
    starts: BTreeMap<InstanceId, u32>,
}

struct Edge<'a>(&'a World);

impl EdgeView for Edge<'_> {
    fn is_free_of(&self, id: InstanceId) -> bool {
        !self.0.table.contains(&id) && !self.0.published.contains(&id) && !self.0.in_flight.contains(&id)
    }

    fn may_stop(&self, id: InstanceId) -> bool {
        self.is_free_of(id)
    }
}

impl World {
    fn moment(&self) -> Moment {
        Moment { wall: Timestamp::from_second(1_000 + self.now.as_secs() as i64).unwrap(), mono: self.now }
    }

    fn take(&mut self, instances: &[InstanceSpec]) {
        let spec = Spec {
            host: HostId(Uuid::nil()),
            generation: Generation { epoch: 1, number: 1 },
            instances: instances.to_vec(),
            routes: vec![],
        };
        let now = self.moment();
        take_spec(&mut self.records, &spec, now);
    }

    /// One pass: plan and begin; checks the invariants of every step.
    fn pass(&mut self) {
        let plan = plan(&self.records, &Edge(self), self.moment());
        for &step in &plan.steps {
            let id = step.instance();
            assert!(
                self.records[&id].underway.is_none() || matches!(step, Step::Cancel(_)),
                "two steps at once"
            );
            match step {
                Step::Start(_) => {
                    assert!(!self.containers.contains_key(&id), "started over a running container");
                    assert!(self.records[&id].should_run());
                    *self.starts.entry(id).or_default() += 1;
                }
                Step::Clean(_) => {
                    assert!(!self.containers.contains_key(&id), "cleaned under a running process")
                }
                Step::Destroy(_) => {
                    assert!(!self.containers.contains_key(&id));
                    assert!(
                        Edge(self).is_free_of(id) || id.0.as_u128() > 2,
                        "freed an address that the edge may use"
                    );
                }
                _ => {}
            }
            let now = self.moment();
            begin(self.records.get_mut(&id).unwrap(), step, now);
            self.begun.push(step);
        }
        // As the loop does: the table follows what is routable after the steps have begun.
        let after = super::plan::plan(&self.records, &Edge(self), self.moment());
        self.published = after.routable.into_iter().collect();
        for id in &self.published {
            assert!(self.containers.contains_key(id), "routed to a process that does not run");
        }
    }

    fn tell(&mut self, id: InstanceId, event: Event) {
        let now = self.moment();
        let record = self.records.get_mut(&id).unwrap();
        let launch = record.launch;
        let destroyed = event == Event::Destroyed;
        apply(record, launch, event, now);
        if destroyed {
            self.records.remove(&id);
        }
    }

    /// Carries out what is under way for an instance; `fate` picks among the ways it can go.
    fn finish(&mut self, id: InstanceId, fate: u8) {
        let Some(record) = self.records.get(&id) else { return };
        let trouble = || Trouble { code: Code::R20, message: String::new(), log_tail: vec![] };
        match (record.underway, fate % 4) {
            (Some(Underway::Start), 0) => self.tell(id, Event::StartFailed(trouble())),
            (Some(Underway::Start), _) => {
                self.containers.insert(id, 0);
                self.addresses.insert(id, ());
                self.tell(id, Event::Started { address: Some(Ipv4Addr::new(198, 18, 0, 2)), pid: 1 });
            }
            (Some(Underway::Build), _) => self.tell(id, Event::BuildEnded(Box::new(Err(trouble())))),
            (Some(Underway::Cancel), _) => self.tell(id, Event::BuildEnded(Box::new(Err(trouble())))),
            (Some(Underway::Stop | Underway::Clean | Underway::Destroy), 0) => {
                self.tell(id, Event::Refused { reason: "played".into() });
            }
            (Some(Underway::Kill), _) => self.exit(id, Exit::Signal(9)),
            (Some(Underway::Stop), _) => {
                self.exit(id, Exit::Signal(15));
                self.tell(id, Event::Stopped { killed: fate % 4 == 1 });
            }
            (Some(Underway::Clean), _) => self.tell(id, Event::Cleaned),
            (Some(Underway::Destroy), _) => {
                self.addresses.remove(&id);
                self.tell(id, Event::Destroyed);
            }
            (None, _) => {}
        }
    }

    fn exit(&mut self, id: InstanceId, exit: Exit) {
        if self.containers.remove(&id).is_some() {
            self.tell(id, Event::Exited { exit, log_tail: vec![] });
        }
    }

    fn well(&mut self, id: InstanceId) {
        if self.containers.contains_key(&id) {
            self.tell(id, Event::Health(Health::Up, None));
        }
    }

    fn state(&self, n: u128) -> InstanceState {
        self.records[&id(n)].state()
    }

    /// Everything goes well until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.now += Duration::from_secs(5);
            self.pass();
            for id in self.records.keys().copied().collect::<Vec<_>>() {
                self.finish(id, 3);
                if self.records.contains_key(&id) {
                    self.well(id);
                }
            }
            self.table = self.published.clone();
            self.in_flight.clear();
        }
    }
}

fn started(world: &mut World, instances: &[InstanceSpec]) {
    world.take(instances);
    world.pass();
    for spec in instances {
        world.finish(spec.id, 3);
    }
}

#[test]
fn a_service_must_come_up_and_be_routed_only_once_it_is_well() {
    let mut world = World::default();
    started(&mut world, &[web(1)]);
    world.pass();
    assert_eq!((world.state(1), world.published.len()), (InstanceState::Starting, 0));
    world.well(id(1));
    world.pass();
    assert_eq!((world.state(1), world.published.len()), (InstanceState::Healthy, 1));
}

#[test]
fn a_drained_instance_must_not_be_stopped_before_the_edge_is_free_of_it() {
    let mut world = World::default();
    started(&mut world, &[web(1)]);
    world.well(id(1));
    world.pass();
    world.table = world.published.clone();
    world.take(&[InstanceSpec { desired: Desired::Drain, ..web(1) }]);
    world.pass();
    world.pass();
    assert_eq!((world.state(1), world.published.len()), (InstanceState::Draining, 0));
    world.table.clear();
    world.in_flight = vec![id(1)];
    world.pass();
    assert_eq!(world.state(1), InstanceState::Draining);
    world.in_flight.clear();
    world.pass();
    assert_eq!(world.state(1), InstanceState::Stopping);
}

#[test]
fn a_drain_must_end_after_its_longest_time_even_with_a_request_that_never_ends() {
    let mut world = World::default();
    started(&mut world, &[web(1)]);
    world.well(id(1));
    world.take(&[InstanceSpec { desired: Desired::Drain, ..web(1) }]);
    world.in_flight = vec![id(1)];
    world.pass();
    world.now += Duration::from_secs(29);
    world.pass();
    assert_eq!(world.state(1), InstanceState::Draining);
    world.now += Duration::from_secs(1);
    world.pass();
    assert_eq!(world.state(1), InstanceState::Stopping);
}

#[test]
fn a_crashing_service_must_back_off_from_one_second_to_a_minute_and_be_counted() {
    let mut world = World::default();
    started(&mut world, &[web(1)]);
    let mut pauses = vec![];
    for _ in 0..8 {
        world.exit(id(1), Exit::Code(1));
        assert_eq!(world.state(1), InstanceState::BackingOff);
        let crashed = world.now;
        while world.state(1) != InstanceState::Starting {
            world.pass();
            world.finish(id(1), 3);
            world.now += Duration::from_millis(500);
        }
        pauses.push((world.now - crashed).as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(world.records[&id(1)].restarts, 8);
    assert_eq!(world.records[&id(1)].trouble.as_ref().map(|t| t.code), Some(Code::R16));
}

#[test]
fn a_minute_of_health_must_reset_the_pause() {
    let mut world = World::default();
    started(&mut world, &[web(1)]);
    world.records.get_mut(&id(1)).unwrap().failures = 5;
    world.well(id(1));
    world.now += Duration::from_secs(60);
    world.exit(id(1), Exit::Code(1));
    assert_eq!(world.records[&id(1)].failures, 1);
    assert_eq!(world.records[&id(1)].trouble.as_ref().map(|t| t.code), Some(Code::R18));
}

#[test]
fn a_service_that_never_binds_must_be_killed_after_its_boot_timeout_with_the_verdict_as_trouble() {
    let mut world = World::default();
    started(&mut world, &[web(1)]);
    world.now += Duration::from_secs(60);
    world.pass();
    assert_eq!(world.records[&id(1)].underway, Some(Underway::Kill));
    world.tell(
        id(1),
        Event::Verdict(Trouble { code: Code::R11, message: "loopback".into(), log_tail: vec![] }),
    );
    world.exit(id(1), Exit::Signal(9));
    assert_eq!(world.state(1), InstanceState::BackingOff);
    assert_eq!(world.records[&id(1)].trouble.as_ref().map(|t| t.code), Some(Code::R11));
}

#[test]
fn a_one_off_must_run_once_and_be_killed_when_it_runs_too_long() {
    let mut world = World::default();
    let one_off = instance(1, Work::OneOff(process(None)), Desired::Run);
    started(&mut world, std::slice::from_ref(&one_off));
    assert_eq!(world.state(1), InstanceState::Healthy);
    world.now += Duration::from_secs(60);
    world.pass();
    assert_eq!(world.records[&id(1)].underway, Some(Underway::Kill));
    world.tell(id(1), Event::Verdict(Trouble { code: Code::R23, message: String::new(), log_tail: vec![] }));
    world.exit(id(1), Exit::Signal(9));
    assert_eq!(world.records[&id(1)].last_exit, Some(Exit::TimedOut));
    world.settle();
    assert_eq!((world.state(1), world.starts[&id(1)]), (InstanceState::Exited, 1));
}

#[test]
fn a_worker_must_count_as_well_only_after_it_ran_for_a_while() {
    let mut world = World::default();
    started(&mut world, &[instance(1, Work::Service(process(None)), Desired::Run)]);
    world.pass();
    assert_eq!(world.state(1), InstanceState::Starting);
    world.now += Duration::from_secs(1);
    world.pass();
    assert_eq!(world.state(1), InstanceState::Healthy);
}

#[test]
fn an_event_of_an_earlier_launch_must_be_ignored() {
    let mut world = World::default();
    started(&mut world, &[web(1)]);
    let now = world.moment();
    let record = world.records.get_mut(&id(1)).unwrap();
    apply(record, 0, Event::Exited { exit: Exit::Code(1), log_tail: vec![] }, now);
    assert_eq!(world.state(1), InstanceState::Starting);
}

#[test]
fn steps_that_remove_must_come_before_steps_that_add() {
    let mut world = World::default();
    started(&mut world, &[web(9)]);
    world.records.get_mut(&id(9)).unwrap().remains = super::record::Remains::Container;
    world.take(&[web(1)]);
    let now = world.moment();
    let steps = plan(&world.records, &Edge(&world), now).steps;
    assert_eq!(steps, [Step::Drain(id(9)), Step::Start(id(1))]);
}

#[derive(Debug, Clone)]
enum Act {
    Spec(Vec<(u128, u8)>),
    Pass,
    Finish(u128, u8),
    Exit(u128, u8),
    Health(u128, bool),
    Ack,
    Request(u128),
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let n = 1u128..5;
    let act = prop_oneof![
        1 => prop::collection::vec((n.clone(), 0u8..6), 0..4).prop_map(Act::Spec),
        6 => Just(Act::Pass),
        6 => (n.clone(), any::<u8>()).prop_map(|(n, f)| Act::Finish(n, f)),
        2 => (n.clone(), any::<u8>()).prop_map(|(n, c)| Act::Exit(n, c)),
        3 => (n.clone(), any::<bool>()).prop_map(|(n, h)| Act::Health(n, h)),
        3 => Just(Act::Ack),
        1 => n.prop_map(Act::Request),
        2 => (1u64..40).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..120)
}

/// The work of an instance never changes: it derives from its id.
fn of_kind(n: u128, desired: u8) -> InstanceSpec {
    let work = match n {
        1 | 2 => Work::Service(process(Some(5000))),
        3 => Work::Service(process(None)),
        _ => Work::OneOff(process(None)),
    };
    instance(n, work, if desired == 0 { Desired::Drain } else { Desired::Run })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_no_invariant_must_break_and_it_must_converge(acts in acts()) {
        let mut world = World::default();
        // An instance that drains never runs again, and a gone one never comes back: ids are not reused.
        let mut spent: Vec<u128> = vec![];
        let mut drained: Vec<u128> = vec![];
        let mut last: Vec<InstanceSpec> = vec![];
        for act in acts {
            match act {
                Act::Spec(wanted) => {
                    let wanted: BTreeMap<u128, u8> = wanted.into_iter().collect();
                    let gone = last.iter().map(|i| i.id.0.as_u128()).filter(|n| !wanted.contains_key(n));
                    spent.extend(gone.collect::<Vec<_>>());
                    let desired = |n: &u128, d: u8| if drained.contains(n) { 0 } else { d };
                    last = wanted
                        .iter()
                        .filter(|(n, _)| !spent.contains(n))
                        .map(|(n, &d)| of_kind(*n, desired(n, d)))
                        .collect();
                    drained.extend(last.iter().filter(|i| i.desired == Desired::Drain).map(|i| i.id.0.as_u128()));
                    world.take(&last);
                }
                Act::Pass => world.pass(),
                Act::Finish(n, fate) => world.finish(id(n), fate),
                Act::Exit(n, code) => world.exit(id(n), Exit::Code(code)),
                Act::Health(n, true) => world.well(id(n)),
                Act::Health(n, false) if world.containers.contains_key(&id(n)) => {
                    world.tell(id(n), Event::Health(Health::Down, None));
                }
                Act::Health(..) => {}
                Act::Ack => {
                    world.in_flight.retain(|i| !world.table.contains(i));
                    world.table = world.published.clone();
                }
                Act::Request(n) => if world.table.contains(&id(n)) { world.in_flight.push(id(n)) },
                Act::Wait(seconds) => world.now += Duration::from_secs(seconds),
            }
        }
        world.settle();
        for spec in &last {
            let state = world.records[&spec.id].state();
            match (&spec.work, spec.desired) {
                (_, Desired::Drain) => prop_assert_eq!(state, InstanceState::Exited),
                (Work::Service(_), Desired::Run) => prop_assert_eq!(state, InstanceState::Healthy),
                _ => prop_assert!(matches!(state, InstanceState::Healthy | InstanceState::Exited)),
            }
            if matches!(spec.work, Work::OneOff(_)) {
                prop_assert!(world.starts.get(&spec.id).copied().unwrap_or(0) <= 1, "a one-off ran twice");
            }
        }
        // Nothing is left of what no spec names, addresses included.
        let named: Vec<InstanceId> = last.iter().map(|i| i.id).collect();
        prop_assert!(world.records.keys().all(|i| named.contains(i)));
        prop_assert!(world.containers.keys().all(|i| named.contains(i)));
        prop_assert!(world.addresses.keys().all(|i| named.contains(i)));
    }
}

#[test]
fn a_one_off_that_was_launched_before_the_agent_ended_must_not_run_again() {
    use super::memory::{Memory, recall};
    use super::record::{Phase, Record, Remains};
    let now = World::default().moment();
    let spec = Arc::new(instance(4, Work::OneOff(process(None)), Desired::Run));
    let memory = Memory { launched: true, ..Memory::default() };
    let record = recall(Record::new(spec, now), Some(memory), Remains::Nothing, false, now);
    assert_eq!((record.phase, record.last_exit), (Phase::Exited, Some(Exit::Unknown)));
}

#[test]
fn an_adopted_instance_that_was_healthy_must_stay_routed() {
    use super::memory::{Memory, recall};
    use super::record::{Record, Remains};
    let now = World::default().moment();
    let memory = Memory { launched: true, healthy: true, restarts: 3, ..Memory::default() };
    let mut record = recall(Record::new(Arc::new(web(1)), now), Some(memory), Remains::Container, true, now);
    record.address = Some(Ipv4Addr::new(198, 18, 0, 2));
    assert!(record.is_routable());
    assert_eq!(record.restarts, 3);
}

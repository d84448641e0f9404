//! The pure core, one behaviour a test.

mod any_order;
mod world;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::report::{Exit, InstanceState, Trouble};
use berth_wire::spec::{Desired, InstanceSpec, Work};

use super::plan::{Step, plan};
use super::record::Underway;
use super::transition::{Event, apply};
use world::{Edge, World, id, instance, process, web};

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

//! Whatever happens in whatever order, the invariants hold and it converges.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_wire::id::InstanceId;
use berth_wire::report::{Exit, InstanceState};
use berth_wire::spec::{Desired, InstanceSpec, Work};
use proptest::prelude::*;

use super::world::{World, id, instance, process};
use crate::reconcile::record::Health;
use crate::reconcile::transition::Event;

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

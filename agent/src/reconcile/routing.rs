//! The spec's routes cut down to what can answer now. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use berth_wire::code::Code;
use berth_wire::edge::{Backend, Upstream};
use berth_wire::id::InstanceId;
use berth_wire::name::Domain;
use berth_wire::report::InstanceState;
use berth_wire::spec::Route;

use super::record::{Record, Records};

/// What the edge should route.
pub fn domains(
    routes: &[Route],
    records: &Records,
    routable: &BTreeSet<InstanceId>,
) -> BTreeMap<Domain, Backend> {
    let backend = |route: &Route| {
        let upstreams: Vec<Upstream> = route
            .instances
            .iter()
            .filter(|id| routable.contains(id))
            .filter_map(|&id| upstream(id, records.get(&id)?))
            .collect();
        let absent = if upstreams.is_empty() { absent(route, records) } else { None };
        Backend { app: route.app, app_name: route.app_name.clone(), upstreams, absent }
    };
    routes.iter().map(|route| (route.domain.clone(), backend(route))).collect()
}

fn upstream(instance: InstanceId, record: &Record) -> Option<Upstream> {
    let port = record.process()?.port?;
    let address = SocketAddr::from((record.address?, port));
    Some(Upstream { instance, process: record.label(), address })
}

/// Why nobody answers: crashed, or did not come up; nothing to say about an app without instances.
fn absent(route: &Route, records: &Records) -> Option<Code> {
    let of_route: Vec<&Record> = route.instances.iter().filter_map(|id| records.get(id)).collect();
    let never_bound =
        |r: &&Record| r.trouble.as_ref().is_some_and(|t| matches!(t.code, Code::R10 | Code::R11 | Code::R13));
    if of_route.iter().any(never_bound) {
        return Some(Code::H20);
    }
    let down = |r: &&Record| {
        matches!(r.state(), InstanceState::BackingOff | InstanceState::Exited) || r.trouble.is_some()
    };
    of_route.iter().any(down).then_some(Code::H10)
}

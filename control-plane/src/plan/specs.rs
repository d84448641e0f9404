//! The spec of each host: the instances placed on it, and where HTTP goes. Equal state gives equal bytes, so that a
//! generation is spent only on a change.

use berth_wire::id::{HostId, InstanceId};
use berth_wire::spec::{Generation, InstanceSpec, Route, Spec};

use super::{AppState, State};
use crate::domain::placed::Placed;

/// What one host should run. The generation is the caller's to set.
pub fn spec_of(state: &State, host: HostId) -> Spec {
    let here = |app: &AppState, wanted: &dyn Fn(&Placed) -> bool| -> Vec<Placed> {
        app.instances.iter().filter(|p| p.host == host && wanted(p)).cloned().collect()
    };
    let mut instances: Vec<InstanceSpec> =
        state.apps.iter().flat_map(|app| here(app, &|_| true)).map(|p| p.spec).collect();
    instances.sort_by_key(|spec| spec.id);
    let mut routes: Vec<Route> = Vec::new();
    for app in state.apps.iter().filter(|app| app.app.deleted_at.is_none()) {
        // Those that are told to stop are left out, and that is what makes the edge stop sending to them.
        let serves = |p: &Placed| p.runs() && p.spec.process.is_web() && p.service().is_some();
        let mut web: Vec<InstanceId> = here(app, &serves).into_iter().map(|p| p.spec.id).collect();
        web.sort();
        routes.extend(app.app.domains.iter().map(|domain| Route {
            domain: domain.clone(),
            app: app.app.id,
            app_name: app.app.name.clone(),
            instances: web.clone(),
        }));
    }
    routes.sort_by(|a, b| a.domain.cmp(&b.domain));
    Spec { host, generation: Generation { epoch: 0, number: 0 }, instances, routes }
}

//! Instances: what runs, where and why, and how it is.

use std::collections::HashMap;

use axum::extract::State;
use berth_wire::api::{Instance, Problem};
use berth_wire::name::AppName;
use berth_wire::quota::Quota;
use berth_wire::spec::Work;

use super::extract::{Path, find_app};
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::domain::host::HostRow;
use crate::domain::placed::Placed;
use crate::store::{hosts, instances};

/// An app's instances by name; builds are listed with the builds.
#[utoipa::path(get, path = "/v1/apps/{app}/instances", tag = "instances", params(("app" = String, Path)),
    responses((status = 200, body = [Instance]), (status = 404, body = Problem)))]
pub async fn list(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
) -> Result<axum::Json<Vec<Instance>>, ApiError> {
    let mut conn = app.store.read().await?;
    let row = find_app(&mut conn, &caller, &name).await?;
    let hosts: HashMap<_, _> = hosts::list(&mut conn).await?.into_iter().map(|h| (h.id, h)).collect();
    let mut placed = instances::list(&app.store, &mut conn, row.id).await?;
    placed.retain(|p| !matches!(p.spec.work, Work::Build(_)));
    placed.sort_by(|a, b| {
        (&a.spec.process, a.spec.index, a.spec.id).cmp(&(&b.spec.process, b.spec.index, b.spec.id))
    });
    let shown = |p: Placed| {
        let host = hosts.get(&p.host);
        let unenforced = host.map_or_else(Vec::new, |host| unenforced(host, &p.spec.quota));
        let host_name = host.map(|host| host.name.clone()).unwrap_or_default();
        Instance { unenforced, ..to_wire(&app, p, host_name) }
    };
    Ok(axum::Json(placed.into_iter().map(shown).collect()))
}

/// What of a quota that somebody asked for a host does not enforce, one sentence each.
pub(super) fn unenforced(host: &HostRow, quota: &Quota) -> Vec<String> {
    let asked = quota.stated();
    let lacks = host.facts.unenforced.iter().filter(|(field, _)| asked.contains(&field.as_str()));
    lacks
        .map(|(field, reason)| format!("{field} is not, or not wholly, enforced on {}: {reason}", host.name))
        .collect()
}

/// As the API shows it.
pub(super) fn to_wire(app: &App, placed: Placed, host_name: String) -> Instance {
    let name = placed.name();
    let sample = app.samples.get(placed.host, placed.spec.id);
    let report = placed.report;
    Instance {
        id: placed.spec.id,
        name,
        release: placed.release,
        host: placed.host,
        host_name,
        reason: placed.reason,
        state: report.as_ref().map(|r| r.state),
        since: report.as_ref().map(|r| r.since),
        restarts: report.as_ref().map_or(0, |r| r.restarts),
        last_exit: report.as_ref().and_then(|r| r.last_exit),
        trouble: report.and_then(|r| r.trouble),
        quota: placed.spec.quota,
        unenforced: Vec::new(),
        sample,
    }
}

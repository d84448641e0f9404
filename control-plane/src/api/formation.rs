//! Formations: how many of each process type, with which quota. A change makes a release; before the first image it
//! waits for it.

use axum::extract::State;
use berth_wire::api::{Change, Formation as WireFormation, FormationChange, Problem};
use berth_wire::code::Code;
use berth_wire::name::AppName;
use sqlx::SqliteConnection;

use super::change::{Accepted, Standing, unchanged};
use super::extract::{Json, Path};
use super::instances::unenforced;
use super::problem::ApiError;
use super::releases::formation_of;
use crate::access::ApiCaller;
use crate::app::App;
use crate::domain::formation::{Formation, change as changed, describe};
use crate::domain::release::Why;
use crate::plan::place::fits_empty;
use crate::store::hosts;

/// The formation of the release the app stands on.
#[utoipa::path(get, path = "/v1/apps/{app}/formation", tag = "formation", params(("app" = String, Path)),
    responses((status = 200, body = [WireFormation]), (status = 404, body = Problem)))]
pub async fn show(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
) -> Result<axum::Json<Vec<WireFormation>>, ApiError> {
    let standing = Standing::find(&app, &mut *app.store.read().await?, &caller, &name).await?;
    if let Some(head) = standing.head() {
        return Ok(axum::Json(formation_of(head)));
    }
    let shown = standing.formation().iter().map(|(process, scale)| WireFormation {
        process: process.clone(),
        command: None,
        count: scale.count,
        quota: scale.quota,
    });
    Ok(axum::Json(shown.collect()))
}

/// Changes counts and quotas, in one release. Instances that stay as they are are not restarted.
#[utoipa::path(patch, path = "/v1/apps/{app}/formation", tag = "formation", params(("app" = String, Path)),
    request_body = [FormationChange],
    responses((status = 200, body = Change, description = "Nothing changed, or there is no image yet"),
        (status = 202, body = Change), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
    Json(changes): Json<Vec<FormationChange>>,
) -> Result<Accepted, ApiError> {
    let mut tx = app.store.begin().await?;
    let standing = Standing::find(&app, &mut tx, &caller, &name).await?;
    let old = standing.formation();
    let formation = changed(old, &changes, standing.head().map(|head| &head.manifest))?;
    let said = check_hosts(&mut tx, &changes, &formation).await?;
    if formation == *old {
        return Ok(unchanged("the formation is like that"));
    }
    let description = describe(old, &formation);
    let (status, axum::Json(change)) =
        standing.change(&app, tx, Why::Scale { formation, description }, &caller).await?;
    let message = [&[change.message], &said[..]].concat().join("; ");
    Ok((status, axum::Json(Change { message, ..change })))
}

/// A quota that no host could ever grant is refused here, not waited for. Only hosts that have said what they are count. Says what of
/// it they do not enforce.
async fn check_hosts(
    conn: &mut SqliteConnection,
    changes: &[FormationChange],
    formation: &Formation,
) -> Result<Vec<String>, ApiError> {
    let mut said = Vec::new();
    let known: Vec<_> =
        hosts::list(conn).await?.into_iter().filter(|host| host.facts.memory_bytes > 0).collect();
    for change in changes.iter().filter(|change| !change.quota.is_empty()) {
        let Some(scale) = formation.get(&change.process) else { continue };
        if !known.is_empty() && !known.iter().any(|host| fits_empty(&host.facts, &scale.quota)) {
            let largest = known.iter().max_by_key(|host| host.facts.memory_bytes);
            let has = largest.map_or_else(String::new, |host| {
                format!(
                    "; {} has {} milli-CPUs, {} MiB of memory and {} MiB of disk",
                    host.name,
                    host.facts.cpu_millis,
                    host.facts.memory_bytes >> 20,
                    host.facts.disk_bytes >> 20
                )
            });
            let detail = format!("{}: no host could ever run an instance of this quota{has}", change.process);
            return Err(ApiError::new(Code::A17, detail));
        }
        said.extend(known.iter().flat_map(|host| unenforced(host, &scale.quota)));
    }
    said.sort();
    said.dedup();
    Ok(said)
}

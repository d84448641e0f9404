//! Builds: what was built and what came of it. Uploading a source and reading a build's log are beside the logs.

use axum::extract::State;
use berth_wire::api::{Build, Problem};
use berth_wire::code::Code;
use berth_wire::id::BuildId;
use berth_wire::name::AppName;

use super::extract::{Path, find_app};
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::store::builds;

/// Most builds in one answer.
const LIST_MAX: u32 = 100;

/// An app's builds, newest first, at most 100.
#[utoipa::path(get, path = "/v1/apps/{app}/builds", tag = "builds", params(("app" = String, Path)),
    responses((status = 200, body = [Build]), (status = 404, body = Problem)))]
pub async fn list(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
) -> Result<axum::Json<Vec<Build>>, ApiError> {
    let mut conn = app.store.read().await?;
    let row = find_app(&mut conn, &caller, &name).await?;
    let all = builds::list(&mut conn, row.id, LIST_MAX).await?;
    Ok(axum::Json(all.iter().map(|build| build.to_wire()).collect()))
}

/// One build.
#[utoipa::path(get, path = "/v1/apps/{app}/builds/{id}", tag = "builds",
    params(("app" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Build), (status = 404, body = Problem)))]
pub async fn show(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path((name, id)): Path<(AppName, BuildId)>,
) -> Result<axum::Json<Build>, ApiError> {
    let mut conn = app.store.read().await?;
    let row = find_app(&mut conn, &caller, &name).await?;
    let build = builds::find(&mut conn, row.id, id).await?.ok_or_else(|| {
        ApiError::new(Code::A12, format!("{name} has no build {id}; `berth builds` lists them"))
    })?;
    Ok(axum::Json(build.to_wire()))
}

//! Releases: what there is, and the changes that make one out of an earlier one. Config and formation have files of
//! their own and use [`make`].

use std::time::Duration;

use axum::extract::State;
use berth_wire::api::{Change, Event, Formation, Problem, Release as WireRelease, ReleaseStatus, Rollback};
use berth_wire::code::Code;
use berth_wire::name::{AppName, ProcessType};
use http::StatusCode;
use serde::Deserialize;
use sqlx::SqliteConnection;

use super::extract::{Json, Path, Query, find_app};
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::domain::release::{Content, Release, Why};
use crate::store::apps::AppRow;
use crate::store::tokens::Bearer;
use crate::store::{StoreError, events, releases};

/// Most releases in one answer.
const PAGE_MAX: u32 = 200;

/// Releases in one answer unless told otherwise.
const PAGE: u32 = 50;

/// Longest wait for a release, in seconds: what proxies on the way usually allow.
const WAIT_SECONDS_MAX: u64 = 60;

/// A release as the API shows it.
pub fn to_wire(release: Release) -> WireRelease {
    let formation = formation_of(&release.content);
    WireRelease {
        version: release.version,
        created_at: release.created_at,
        description: release.description,
        by: release.by,
        status: release.status,
        trouble: release.trouble,
        image: release.content.image,
        commit: release.content.commit,
        build: release.content.build,
        formation,
        health: release.content.manifest.health,
    }
}

/// The formation of a release, each process type with its command line.
pub fn formation_of(content: &Content) -> Vec<Formation> {
    let command = |process: &ProcessType| content.manifest.processes.get(process).cloned();
    content
        .formation
        .iter()
        .map(|(process, scale)| Formation {
            process: process.clone(),
            command: command(process),
            count: scale.count,
            quota: scale.quota,
        })
        .collect()
}

/// Makes a release in the caller's transaction. None if the app has no image yet.
///
/// # Errors
/// The store failed.
pub async fn make(
    app: &App,
    conn: &mut SqliteConnection,
    row: &AppRow,
    why: Why,
    by: &Bearer,
) -> Result<Option<Change>, StoreError> {
    let now = app.clock.now();
    let Some(release) = releases::create(&app.store, conn, row.id, why, &by.name, now).await? else {
        return Ok(None);
    };
    let message = format!("v{}: {}", release.version, release.description);
    let event = Event {
        at: now,
        process: "api".to_owned(),
        code: None,
        message: format!("Release {message} by {}", by.name),
    };
    events::insert(conn, row.id, &event).await?;
    Ok(Some(Change { release: Some(release.version), message }))
}

/// The answer to a change that needs an image when there is none.
pub fn no_image(row: &AppRow) -> ApiError {
    ApiError::new(Code::A16, format!("{} has no release yet; push something first", row.name))
}

/// Which page of a list.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Only releases below this version.
    before: Option<u64>,
    /// How many, at most 200; 50 if absent.
    limit: Option<u32>,
}

/// An app's releases, newest first.
#[utoipa::path(get, path = "/v1/apps/{app}/releases", tag = "releases", params(("app" = String, Path), Page),
    responses((status = 200, body = [WireRelease]), (status = 404, body = Problem)))]
pub async fn list(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
    Query(page): Query<Page>,
) -> Result<axum::Json<Vec<WireRelease>>, ApiError> {
    let mut conn = app.store.read().await?;
    let row = find_app(&mut conn, &caller, &name).await?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let all = releases::list(&app.store, &mut conn, row.id, page.before, limit).await?;
    Ok(axum::Json(all.into_iter().map(to_wire).collect()))
}

/// How long to wait.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Answer when the release is settled, or after this many seconds, at most 60; at once if absent.
    wait: Option<u64>,
}

/// One release; with `wait`, once it is settled.
#[utoipa::path(get, path = "/v1/apps/{app}/releases/{version}", tag = "releases",
    params(("app" = String, Path), ("version" = u64, Path), Wait),
    responses((status = 200, body = WireRelease), (status = 404, body = Problem)))]
pub async fn show(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path((name, version)): Path<(AppName, u64)>,
    Query(wait): Query<Wait>,
) -> Result<axum::Json<WireRelease>, ApiError> {
    let wait = Duration::from_secs(wait.wait.unwrap_or(0).min(WAIT_SECONDS_MAX));
    let deadline = tokio::time::Instant::now() + wait;
    let mut changed = app.wakes.watch();
    loop {
        let release = find(&app, &caller, &name, version).await?;
        if release.status.is_settled() {
            return Ok(axum::Json(to_wire(release)));
        }
        if tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
            return Ok(axum::Json(to_wire(release)));
        }
    }
}

async fn find(app: &App, caller: &Bearer, name: &AppName, version: u64) -> Result<Release, ApiError> {
    let mut conn = app.store.read().await?;
    let row = find_app(&mut conn, caller, name).await?;
    require(app, &mut conn, &row, version).await
}

async fn require(
    app: &App,
    conn: &mut SqliteConnection,
    row: &AppRow,
    version: u64,
) -> Result<Release, ApiError> {
    releases::find(&app.store, conn, row.id, version).await?.ok_or_else(|| {
        ApiError::new(Code::A12, format!("{} has no v{version}; `berth releases` lists them", row.name))
    })
}

/// Back to what an earlier release ran, as a new release. The present formation stays.
#[utoipa::path(post, path = "/v1/apps/{app}/rollback", tag = "releases", params(("app" = String, Path)),
    request_body = Rollback,
    responses((status = 202, body = Change), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn rollback(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
    Json(rollback): Json<Rollback>,
) -> Result<(StatusCode, axum::Json<Change>), ApiError> {
    let mut tx = app.store.begin().await?;
    let row = find_app(&mut tx, &caller, &name).await?;
    let head = releases::head_find(&app.store, &mut tx, row.id).await?.ok_or_else(|| no_image(&row))?;
    let target = match rollback.version {
        Some(version) => require(&app, &mut tx, &row, version).await?,
        None => releases::find_served_before(&app.store, &mut tx, row.id, head.version).await?.ok_or_else(
            || ApiError::new(Code::A16, format!("no release of {name} served before v{}", head.version)),
        )?,
    };
    if target.switched_at.is_none() || target.status == ReleaseStatus::Failed {
        let detail = format!("v{} never served well; choose one that did (`berth releases`)", target.version);
        return Err(ApiError::new(Code::A16, detail));
    }
    if target.version == head.version {
        let message = format!("v{} is the current release already; nothing was changed", target.version);
        return Ok((StatusCode::OK, axum::Json(Change { release: None, message })));
    }
    let why = Why::Rollback { to: target.version, content: Box::new(target.content), automatic: false };
    let change = make(&app, &mut tx, &row, why, &caller).await?.ok_or_else(|| no_image(&row))?;
    tx.commit().await.map_err(StoreError::from)?;
    app.wakes.plan();
    Ok((StatusCode::ACCEPTED, axum::Json(change)))
}

/// The same again: every instance is replaced, make before break.
#[utoipa::path(post, path = "/v1/apps/{app}/restart", tag = "releases", params(("app" = String, Path)),
    responses((status = 202, body = Change), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn restart(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
) -> Result<(StatusCode, axum::Json<Change>), ApiError> {
    let mut tx = app.store.begin().await?;
    let row = find_app(&mut tx, &caller, &name).await?;
    // Microseconds since 1970 never repeat within one app: writes are one after the other.
    let nonce = app.clock.now().as_microsecond().cast_unsigned();
    let change =
        make(&app, &mut tx, &row, Why::Restart { nonce }, &caller).await?.ok_or_else(|| no_image(&row))?;
    tx.commit().await.map_err(StoreError::from)?;
    app.wakes.plan();
    Ok((StatusCode::ACCEPTED, axum::Json(change)))
}

//! Apps: made, shown, deleted. What changes in one has files of its own: `config.rs`, `formation.rs`, `releases.rs`.

use axum::extract::State;
use berth_wire::api::{App as WireApp, Event, NewApp, Problem, ReleaseStatus};
use berth_wire::code::Code;
use berth_wire::id::AppId;
use berth_wire::name::AppName;
use http::StatusCode;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::extract::{Json, Path, find_app};
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::domain::release::Release;
use crate::store::apps::{self, AppRow};
use crate::store::{StoreError, events, releases};

/// An app as the API shows it.
async fn to_wire(app: &App, conn: &mut SqliteConnection, row: AppRow) -> Result<WireApp, StoreError> {
    let live = releases::list_live_of(&app.store, conn, row.id).await?;
    Ok(shown(app, row, &live))
}

fn shown(app: &App, row: AppRow, live: &[Release]) -> WireApp {
    let version = |current: bool| {
        let wanted = |r: &&Release| (r.status == ReleaseStatus::Current) == current;
        live.iter().filter(wanted).map(|r| r.version).max()
    };
    WireApp {
        id: row.id,
        created_at: row.created_at,
        git_url: app.config.git_url(&row.name),
        web_url: app.config.apps_url.url(&row.name),
        domains: row.domains,
        release: version(true),
        rolling: version(false),
        name: row.name,
    }
}

/// The team's apps, by name.
#[utoipa::path(get, path = "/v1/apps", tag = "apps",
    responses((status = 200, body = [WireApp]), (status = 401, body = Problem)))]
pub async fn list(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
) -> Result<axum::Json<Vec<WireApp>>, ApiError> {
    let mut conn = app.store.read().await?;
    let mut all = Vec::new();
    for row in apps::list(&mut conn, caller.team).await? {
        all.push(to_wire(&app, &mut conn, row).await?);
    }
    Ok(axum::Json(all))
}

/// Makes an app. It answers 503 with a code until something is pushed to it.
#[utoipa::path(post, path = "/v1/apps", tag = "apps", request_body = NewApp,
    responses((status = 201, body = WireApp), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn create(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Json(new): Json<NewApp>,
) -> Result<(StatusCode, axum::Json<WireApp>), ApiError> {
    let domain =
        app.config.apps_url.domain(&new.name).map_err(|e| ApiError::new(Code::A13, e.to_string()))?;
    let row = AppRow {
        id: AppId(Uuid::now_v7()),
        team: caller.team,
        name: new.name,
        created_at: app.clock.now(),
        deleted_at: None,
        domains: vec![domain],
    };
    let mut tx = app.store.begin().await?;
    match apps::insert(&app.store, &mut tx, &row).await {
        Err(e) if e.is_duplicate() => {
            let detail = format!("the name {} is taken; choose another", row.name);
            return Err(ApiError::new(Code::A14, detail));
        }
        other => other?,
    }
    let event = Event {
        at: row.created_at,
        process: "api".to_owned(),
        code: None,
        message: format!("App created by {}", caller.name),
    };
    events::insert(&mut tx, row.id, &event).await?;
    tx.commit().await.map_err(StoreError::from)?;
    app.wakes.plan();
    Ok((StatusCode::CREATED, axum::Json(shown(&app, row, &[]))))
}

/// One app.
#[utoipa::path(get, path = "/v1/apps/{app}", tag = "apps", params(("app" = String, Path)),
    responses((status = 200, body = WireApp), (status = 404, body = Problem)))]
pub async fn show(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
) -> Result<axum::Json<WireApp>, ApiError> {
    let mut conn = app.store.read().await?;
    let row = find_app(&mut conn, &caller, &name).await?;
    Ok(axum::Json(to_wire(&app, &mut conn, row).await?))
}

/// Deletes an app: its name is free at once, its instances are drained, then all that was its own is removed.
#[utoipa::path(delete, path = "/v1/apps/{app}", tag = "apps", params(("app" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub async fn delete(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.store.begin().await?;
    let row = find_app(&mut tx, &caller, &name).await?;
    apps::mark_deleted(&mut tx, row.id, app.clock.now()).await?;
    tx.commit().await.map_err(StoreError::from)?;
    tracing::info!(app = %name, by = %caller.name, "app deleted");
    app.wakes.plan();
    Ok(StatusCode::NO_CONTENT)
}

//! Config vars. A change makes a release; before the first image it waits for it.

use axum::extract::State;
use berth_wire::api::{Change, ConfigChange, Problem};
use berth_wire::name::AppName;
use http::StatusCode;

use super::extract::{Json, Path, find_app};
use super::problem::ApiError;
use super::releases::{make, no_image};
use crate::access::ApiCaller;
use crate::app::App;
use crate::domain::release::{ConfigVars, Why, change_config};
use crate::store::{StoreError, apps, releases};

/// The config vars of the release the app stands on.
#[utoipa::path(get, path = "/v1/apps/{app}/config", tag = "config", params(("app" = String, Path)),
    responses((status = 200, body = BTreeMap<String, String>), (status = 404, body = Problem)))]
pub async fn show(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
) -> Result<axum::Json<ConfigVars>, ApiError> {
    let mut conn = app.store.read().await?;
    let row = find_app(&mut conn, &caller, &name).await?;
    let config = match releases::head_find(&app.store, &mut conn, row.id).await? {
        Some(head) => head.content.config,
        None => apps::beginnings_find(&app.store, &mut conn, row.id).await?.config,
    };
    Ok(axum::Json(config))
}

/// Sets and unsets config vars, in one release.
#[utoipa::path(patch, path = "/v1/apps/{app}/config", tag = "config", params(("app" = String, Path)),
    request_body = ConfigChange,
    responses((status = 200, body = Change, description = "Nothing changed, or there is no image yet"),
        (status = 202, body = Change), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
    Json(change): Json<ConfigChange>,
) -> Result<(StatusCode, axum::Json<Change>), ApiError> {
    let mut tx = app.store.begin().await?;
    let row = find_app(&mut tx, &caller, &name).await?;
    let head = releases::head_find(&app.store, &mut tx, row.id).await?;
    let mut beginnings = apps::beginnings_find(&app.store, &mut tx, row.id).await?;
    let old = head.as_ref().map_or(&beginnings.config, |head| &head.content.config);
    let Some((config, description)) = change_config(old, &change.set, &change.unset)? else {
        let message = "the config vars have these values already; nothing was changed".to_owned();
        return Ok((StatusCode::OK, axum::Json(Change { release: None, message })));
    };
    let (status, change) = if head.is_some() {
        let why = Why::Config { config, description };
        let change = make(&app, &mut tx, &row, why, &caller).await?.ok_or_else(|| no_image(&row))?;
        (StatusCode::ACCEPTED, change)
    } else {
        beginnings.config = config;
        apps::beginnings_put(&app.store, &mut tx, row.id, &beginnings).await?;
        let message = format!("{description}; the first release will have it");
        (StatusCode::OK, Change { release: None, message })
    };
    tx.commit().await.map_err(StoreError::from)?;
    app.wakes.plan();
    Ok((status, axum::Json(change)))
}

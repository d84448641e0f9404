//! Events: what happened to an app.

use axum::extract::State;
use berth_wire::api::{Event, Problem};
use berth_wire::name::AppName;
use serde::Deserialize;

use super::extract::{Path, Query, find_app};
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::store::events;

/// Most events in one answer: as many as are kept.
const LIST_MAX: u32 = 1_000;

/// How many.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Limit {
    /// At most 1,000; 100 if absent.
    limit: Option<u32>,
}

/// An app's events, newest first.
#[utoipa::path(get, path = "/v1/apps/{app}/events", tag = "events", params(("app" = String, Path), Limit),
    responses((status = 200, body = [Event]), (status = 404, body = Problem)))]
pub async fn list(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
    Query(limit): Query<Limit>,
) -> Result<axum::Json<Vec<Event>>, ApiError> {
    let mut conn = app.store.read().await?;
    let row = find_app(&mut conn, &caller, &name).await?;
    let limit = limit.limit.unwrap_or(100).clamp(1, LIST_MAX);
    Ok(axum::Json(events::list(&mut conn, row.id, limit).await?))
}

//! The long poll for a host's spec: answered at once if there is one that the agent does not have, else when the
//! planner writes one, else with 204.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use berth_wire::spec::Generation;
use http::StatusCode;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::Wait;
use crate::access::HostCaller;
use crate::api::extract::Query;
use crate::api::problem::ApiError;
use crate::app::App;
use crate::store::specs;

#[derive(Debug, Deserialize)]
pub struct Has {
    epoch: Option<u64>,
    after: Option<u64>,
    wait: Option<u64>,
}

pub async fn get(
    State(app): State<App>,
    HostCaller(host): HostCaller,
    Query(has): Query<Has>,
) -> Result<Response, ApiError> {
    let after = has.epoch.zip(has.after).map(|(epoch, number)| Generation { epoch, number });
    let deadline = Instant::now() + Wait { wait: has.wait }.duration();
    let mut changed = app.wakes.watch();
    loop {
        let spec = specs::find_newer(&app.store, &mut *app.store.read().await?, host, after).await?;
        if let Some(spec) = spec {
            return Ok(Json(spec).into_response());
        }
        if timeout_at(deadline, changed.changed()).await.is_err() {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
}

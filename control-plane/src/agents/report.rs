//! Reports: stored in one transaction, then the planner is woken if something in it concerns it.

use axum::Json;
use axum::extract::State;
use berth_wire::code::Code;
use berth_wire::report::{Report, ReportReceipt};

use crate::access::HostCaller;
use crate::api::extract;
use crate::api::problem::ApiError;
use crate::app::App;
use crate::store::{StoreError, reports};

pub async fn post(
    State(app): State<App>,
    HostCaller(host): HostCaller,
    extract::Json(report): extract::Json<Report>,
) -> Result<Json<ReportReceipt>, ApiError> {
    let mut tx = app.store.begin().await?;
    let stored = reports::put(&mut tx, host, &report, app.clock.now()).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let stored = stored.ok_or_else(|| ApiError::new(Code::A12, "this host was removed; add it again"))?;
    app.samples.put(host, report.samples);
    if stored.changed {
        app.wakes.plan();
    }
    // Events and states are what followers of logs and pushes wait for.
    if stored.changed || !report.events.is_empty() {
        app.wakes.changed();
    }
    Ok(Json(stored.receipt))
}

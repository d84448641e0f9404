//! Whose token this is.

use axum::extract::State;
use berth_wire::api::{Account, Problem};

use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::store::teams;

/// Whose token this is.
#[utoipa::path(get, path = "/v1/account", tag = "account",
    responses((status = 200, body = Account), (status = 401, body = Problem)))]
pub async fn show(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
) -> Result<axum::Json<Account>, ApiError> {
    let mut conn = app.store.read().await?;
    Ok(axum::Json(Account {
        team: caller.team,
        team_name: teams::name_find(&mut conn, caller.team).await?.unwrap_or_default(),
        token_name: caller.name,
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

//! Config vars. A change makes a release; before the first image it waits for it.

use axum::extract::State;
use berth_wire::api::{Change, ConfigChange, Problem};
use berth_wire::name::AppName;

use super::change::{Accepted, Standing, unchanged};
use super::extract::{Json, Path};
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::domain::release::{ConfigVars, Why, change_config};

/// The config vars of the release the app stands on.
#[utoipa::path(get, path = "/v1/apps/{app}/config", tag = "config", params(("app" = String, Path)),
    responses((status = 200, body = BTreeMap<String, String>), (status = 404, body = Problem)))]
pub async fn show(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
) -> Result<axum::Json<ConfigVars>, ApiError> {
    let standing = Standing::find(&app, &mut *app.store.read().await?, &caller, &name).await?;
    Ok(axum::Json(standing.config().clone()))
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
) -> Result<Accepted, ApiError> {
    let mut tx = app.store.begin().await?;
    let standing = Standing::find(&app, &mut tx, &caller, &name).await?;
    match change_config(standing.config(), &change.set, &change.unset)? {
        Some((config, description)) => {
            standing.change(&app, tx, Why::Config { config, description }, &caller).await
        }
        None => Ok(unchanged("the config vars have these values")),
    }
}

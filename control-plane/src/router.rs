//! The table of routes: every part's routes, inside the one layer that authorises.

use axum::extract::{DefaultBodyLimit, State};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use berth_wire::code::Code;
use http::{Method, Uri};
use tower_http::trace::TraceLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::access;
use crate::api::{self, document, problem::ApiError, query};
use crate::app::App;
use crate::{agents, git, metrics, registry};

/// Most bytes of a body, unless a route says otherwise: config vars (256 KiB) and their JSON, twice.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// Everything that `berthd` answers.
pub fn router(app: App) -> Router {
    let (api, described) = documented().split_for_parts();
    let described = document::finish(described);
    let parameters = query::Parameters::of(&described);
    api.merge(registry::routes())
        .merge(agents::routes())
        .merge(git::routes())
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics::show))
        .route("/v1/openapi.json", get(move || async move { Json(described) }))
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(parameters, query::check))
        .layer(axum::middleware::from_fn_with_state(app.clone(), access::authorise))
        .layer(axum::middleware::from_fn_with_state(app.clone(), metrics::count))
        .fallback(nothing_here)
        .layer(TraceLayer::new_for_http())
        .with_state(app)
}

/// The document of `/v1`.
pub fn document() -> OpenApi {
    document::finish(documented().split_for_parts().1)
}

/// The routes that the document describes.
fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(document::start()).merge(api::routes())
}

/// Whether the store can be read.
async fn healthz(State(app): State<App>) -> Result<&'static str, ApiError> {
    drop(app.store.read().await?);
    Ok("ok\n")
}

/// The header Allow is axum's to add.
async fn no_such_method(method: Method, uri: Uri) -> impl IntoResponse {
    let detail = format!("{method} is not possible at {}; the header Allow says what is", uri.path());
    ApiError::new(Code::A22, detail)
}

async fn nothing_here(uri: Uri) -> impl IntoResponse {
    ApiError::new(
        Code::A12,
        format!("nothing is at {}; GET /v1/openapi.json lists what there is", uri.path()),
    )
}

//! `/v1`: one file per resource. A handler parses, authorises, calls and maps; what it decides is in `domain/`.

pub mod account;
pub mod apps;
pub mod extract;
pub mod problem;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;

/// The routes of this folder; with them the document that describes them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(account::show))
        .routes(routes!(apps::list, apps::create))
        .routes(routes!(apps::show, apps::delete))
}

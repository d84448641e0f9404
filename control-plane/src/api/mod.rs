//! `/v1`: one file per resource. A handler parses, authorises, calls and maps; what it decides is in `domain/`.

pub mod account;
pub mod apps;
pub mod builds;
pub mod change;
pub mod config;
pub mod document;
pub mod events;
pub mod extract;
pub mod formation;
pub mod hosts;
pub mod instances;
pub mod logs;
pub mod problem;
pub mod query;
pub mod releases;
pub mod run;
pub mod stacks;
pub mod tokens;
pub mod uploads;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;

/// The routes of this folder; with them the document that describes them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(account::show))
        .routes(routes!(apps::list, apps::create))
        .routes(routes!(apps::show, apps::delete))
        .routes(routes!(config::show, config::change))
        .routes(routes!(formation::show, formation::change))
        .routes(routes!(releases::list))
        .routes(routes!(releases::show))
        .routes(routes!(releases::rollback))
        .routes(routes!(releases::restart))
        .routes(routes!(instances::list))
        .routes(routes!(run::run))
        .routes(routes!(run::exec))
        .routes(routes!(builds::list, uploads::upload))
        .routes(routes!(builds::show))
        .routes(routes!(uploads::output))
        .routes(routes!(logs::show))
        .routes(routes!(events::list))
        .routes(routes!(hosts::list))
        .routes(routes!(hosts::metrics))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::delete))
        .routes(routes!(stacks::list))
        .routes(routes!(stacks::put))
}

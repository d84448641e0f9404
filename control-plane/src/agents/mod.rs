//! `/agent/v1`: what hosts ask and say. A host is whoever its token says; nothing in a body is believed about that.
//!
//! | route | file |
//! |---|---|
//! | GET spec | `spec.rs` |
//! | POST report | `report.rs` |
//! | GET sessions, POST sessions/{id} | `session.rs` |
//! | GET sources/{digest}, POST builds/{id}/log | `build.rs` |

mod build;
mod report;
mod session;
mod spec;

use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use serde::Deserialize;

use crate::app::App;

/// Longest a poll may wait: below the minute after which proxies cut silent connections.
const WAIT_MAX: Duration = Duration::from_secs(25);
/// A report of 1,000 instances with 20 log lines each is about 4 MiB.
const REPORT_BYTES_MAX: usize = 16 << 20;
/// Build output in one request.
const LOG_CHUNK_BYTES_MAX: usize = 4 << 20;

/// The routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/agent/v1/spec", get(spec::get))
        .route("/agent/v1/report", post(report::post).layer(DefaultBodyLimit::max(REPORT_BYTES_MAX)))
        .route("/agent/v1/sessions", get(session::list))
        .route("/agent/v1/sessions/{id}", post(session::stream))
        .route("/agent/v1/sessions/{id}/stream", get(session::connect))
        .route("/agent/v1/sources/{digest}", get(build::source))
        .route(
            "/agent/v1/builds/{id}/log",
            post(build::log).layer(DefaultBodyLimit::max(LOG_CHUNK_BYTES_MAX)),
        )
}

/// How long a poll waits, in seconds.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Wait {
    wait: Option<u64>,
}

impl Wait {
    fn duration(self) -> Duration {
        Duration::from_secs(self.wait.unwrap_or(0)).min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests;

//! The public API's bodies, `/v1`: what the CLI, the dashboard and scripts see. Errors are [`Problem`].
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | GET /v1/account | | [`Account`] |
//! | GET, POST /v1/apps | [`NewApp`] | `[App]`, [`App`] |
//! | GET, DELETE /v1/apps/{app} | | [`App`], 204 |
//! | GET, PATCH /v1/apps/{app}/config | [`ConfigChange`] | map of config vars; [`Change`] |
//! | GET, PATCH /v1/apps/{app}/formation | `[FormationChange]` | `[Formation]`; [`Change`] |
//! | GET /v1/apps/{app}/releases, /releases/{version} | | `[Release]`, [`Release`] |
//! | POST /v1/apps/{app}/rollback | [`Rollback`] | [`Change`] |
//! | POST /v1/apps/{app}/restart | | [`Change`] |
//! | GET /v1/apps/{app}/instances | | `[Instance]` |
//! | POST /v1/apps/{app}/run | [`RunRequest`] | upgraded to [`crate::attach`], or with `detach` [`Instance`] |
//! | POST /v1/apps/{app}/exec | [`ExecRequest`] | upgraded to [`crate::attach`] |
//! | GET /v1/apps/{app}/builds, /builds/{id} | | `[Build]`, [`Build`] |
//! | POST /v1/apps/{app}/builds | a tar (`application/x-tar`) | [`Build`] |
//! | GET /v1/apps/{app}/builds/{id}/log?follow= | | `text/plain`, streamed |
//! | GET /v1/apps/{app}/logs?n=&follow=&process= | | JSON lines of [`crate::log::LogLine`], streamed |
//! | GET /v1/apps/{app}/events | | `[Event]`, newest first |
//! | GET /v1/hosts | | `[Host]` |
//! | GET, POST /v1/tokens; DELETE /v1/tokens/{id} | [`NewToken`] | `[Token]`, [`CreatedToken`], 204 |
//! | GET /v1/stacks; PUT /v1/stacks/{name} | [`StackImage`] | `[Stack]`, [`Stack`] |
//! | GET /v1/hosts/{id}/metrics | | Prometheus text |
//! | GET /v1/openapi.json | | the document generated from the handlers; no token needed |
//! | GET /healthz, /metrics | | no token for the first |
//!
//! A field of a body that is not known is refused (a typing error must not be taken for "as it was"); whoever reads an
//! answer ignores those it does not know, so that answers can grow. A query parameter that is not known is refused, too.
//!
//! `{app}` is the app's name. A change is accepted at once (202, a release number); whether it came up is the release's `status`,
//! to be polled, or awaited with `GET /v1/apps/{app}/releases/{version}?wait=30` (answers when the status is final, or after `wait` seconds).

mod app;
mod attach;
mod build;
mod host;
mod instance;
mod problem;
mod release;
mod team;

pub use app::*;
pub use attach::*;
pub use build::*;
pub use host::*;
pub use instance::*;
pub use problem::*;
pub use release::*;
pub use team::*;

//! The agent's side of the rendezvous in [`crate::sessions`].

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use berth_wire::code::Code;
use berth_wire::id::SessionId;
use berth_wire::session::Session;
use futures_util::StreamExt as _;
use http::StatusCode;

use super::Wait;
use crate::access::HostCaller;
use crate::api::extract::{Path, Query};
use crate::api::problem::ApiError;
use crate::app::App;
use crate::attach::{accept, upgrade_of};

pub async fn list(
    State(app): State<App>,
    HostCaller(host): HostCaller,
    Query(wait): Query<Wait>,
) -> Json<Vec<Session>> {
    Json(app.sessions.waiting(host, wait.duration()).await)
}

/// Carries the stream until either side hangs up.
pub async fn stream(
    State(app): State<App>,
    HostCaller(host): HostCaller,
    Path(id): Path<SessionId>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let sender = app.sessions.claim(host, id).ok_or_else(|| {
        ApiError::new(Code::A12, "there is no such session any more; whoever asked has hung up")
    })?;
    let mut body = request.into_body().into_data_stream();
    loop {
        // The reader may hang up while the log is silent.
        let chunk = tokio::select! {
            chunk = body.next() => chunk,
            () = sender.closed() => return Ok(StatusCode::NO_CONTENT),
        };
        let Some(Ok(chunk)) = chunk else { return Ok(StatusCode::NO_CONTENT) };
        if sender.send(chunk).await.is_err() {
            return Ok(StatusCode::NO_CONTENT);
        }
    }
}

/// The same for a session that goes both ways: the connection is upgraded and handed to whoever opened the session.
pub async fn connect(
    State(app): State<App>,
    HostCaller(host): HostCaller,
    Path(id): Path<SessionId>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let upgrade = upgrade_of(&mut request)?;
    let sender = app.sessions.claim_duplex(host, id).ok_or_else(|| {
        ApiError::new(Code::A12, "there is no such session any more; whoever asked has hung up")
    })?;
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            // Whoever asked may have hung up meanwhile; the stream then ends here.
            let _ = sender.send(hyper_util::rt::TokioIo::new(stream));
        }
    });
    Ok(accept())
}

//! Attached commands on their way through: the client's connection and the agent's are both upgraded, and bytes are copied
//! between them until either side ends. What they say to each other (`berth_wire::attach`) is read by neither; only where there
//! is no agent to say it does this side write a frame of its own. The copy holds 8 KiB a direction; beyond it, whoever
//! writes waits.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use berth_wire::attach::{AttachFailure, Frame, PROTOCOL};
use berth_wire::code::Code;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use crate::api::problem::ApiError;
use crate::sessions::DuplexSession;

/// How long an agent may take to connect for a session: it polls without a pause, so only a dead one takes longer.
const AGENT_WITHIN: Duration = Duration::from_secs(20);

/// The promise of the raw connection, if the request asks for one.
///
/// # Errors
/// A13: it asks for none.
pub fn upgrade_of(request: &mut Request) -> Result<OnUpgrade, ApiError> {
    let asks = |name, wanted: &str| {
        let value = request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        value.is_some_and(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(wanted)))
    };
    let wants = asks(CONNECTION, "upgrade") && asks(UPGRADE, PROTOCOL);
    let upgrade = if wants { request.extensions_mut().remove::<OnUpgrade>() } else { None };
    upgrade.ok_or_else(|| {
        let detail =
            format!("this needs a connection that can be upgraded: Upgrade: {PROTOCOL} over HTTP/1.1");
        ApiError::new(Code::A13, detail)
    })
}

/// The answer after which the connection is raw.
pub fn accept() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    response
}

/// Joins client and agent until one of them is gone.
pub async fn relay(client: OnUpgrade, session: DuplexSession) {
    let Ok(client) = client.await else { return };
    let mut client = TokioIo::new(client);
    match session.connected(AGENT_WITHIN).await {
        // An error is the end of one side; the drop that follows tells the other.
        Some(mut agent) => drop(copy_bidirectional(&mut client, &mut agent).await),
        None => {
            let failure = AttachFailure {
                code: Code::A19,
                message: format!("the host's agent did not connect within {} s", AGENT_WITHIN.as_secs()),
                status: None,
            };
            let _ = client.write_all(&Frame::Failed(failure).encode()).await;
        }
    }
    let _ = client.shutdown().await;
}

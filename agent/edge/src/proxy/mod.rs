//! One request, from its head to its last byte.
//!
//! ```text
//!  check (form, host, framing, size) ─┬─> answer (a page with a code)
//!                                     └─> forward: choose, connect, send, retry ─┬─> answer
//!                                                                                ├─> upgrade: a tunnel
//!                                                                                └─> body: streamed, timed, counted
//! ```
//! The [`exchange::Exchange`] goes along and, when it is dropped for whatever reason, writes the access log's line.

pub mod answer;
pub mod body;
pub mod check;
pub mod exchange;
pub mod forward;
pub mod headers;
pub mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::Edge;
use answer::Failure;
use body::{AnswerBody, RequestBody};
use exchange::Exchange;
use forward::Forwarded;

/// The two ends of a client's connection.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// The client.
    pub client: SocketAddr,
    /// The port that it came to.
    pub port: u16,
}

/// Answers one request. Errors are answers too; a response that breaks off later ends the client's connection.
pub async fn serve(
    edge: Arc<Edge>,
    connection: Connection,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let accept = answer::wanted(request.headers());
    let mut exchange = Exchange::begin(edge, connection.client.ip(), &request);
    match proxy(&mut exchange, connection, request).await {
        Ok(Proxied::Body(response, forwarded)) => {
            response.map(|incoming| AnswerBody::upstream(incoming, forwarded, exchange))
        }
        Ok(Proxied::Tunnel(response, tunnel)) => {
            upgrade::start(tunnel, exchange);
            response.map(|_| AnswerBody::empty())
        }
        Err(failure) => {
            exchange.failed(failure);
            answer::page(failure, accept, &exchange.request_id)
        }
    }
}

enum Proxied {
    Body(Response<Incoming>, Forwarded),
    Tunnel(Response<()>, upgrade::Tunnel),
}

async fn proxy(
    exchange: &mut Exchange,
    connection: Connection,
    mut request: Request<Incoming>,
) -> Result<Proxied, Failure> {
    let limits = exchange.edge.limits.clone();
    let checked = check::check(&request, limits.body_bytes_max)?;
    exchange.host = checked.host;
    let client = checked.upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (mut head, incoming) = request.into_parts();
    let (body, activity) = RequestBody::new(incoming, limits.body_bytes_max);
    headers::prepare_request(&mut head, connection, &exchange.request_id, checked.authority, checked.upgrade);
    let (mut response, mut forwarded) =
        forward::forward(exchange, Request::from_parts(head, body), activity).await?;
    exchange.status = response.status().as_u16();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else { return Err(Failure::H13_UNASKED_UPGRADE) };
        let upstream = hyper::upgrade::on(&mut response);
        forwarded.connection = None;
        headers::prepare_response(&mut response, true);
        return Ok(Proxied::Tunnel(response.map(|_| ()), upgrade::Tunnel { client, upstream }));
    }
    headers::prepare_response(&mut response, false);
    Ok(Proxied::Body(response, forwarded))
}

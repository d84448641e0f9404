//! Getting a request to an instance and the head of the response back. What may be tried again, and when:
//!
//! - the connection was refused or nothing of the request was written: another instance, any method;
//! - a kept connection closed without a byte of answer, and the request may be repeated (idempotent, RFC 9110 9.2.2, and without
//!   a body): a fresh connection;
//! - once each; everything else is the client's to repeat.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_wire::id::InstanceId;
use http::{Method, Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use super::answer::Failure;
use super::body::{Activity, RequestBody};
use super::exchange::Exchange;
use crate::Limits;
use crate::idle::{Connection, IDLE_FOR_MAX};
use crate::instance::Instance;
use crate::routes::Choice;

/// Longest that a connection may have been idle for a request that may not be repeated. Servers close idle connections after 2 s
/// (gunicorn) or 5 s (Node); a request that meets such a close in mid-air is lost.
const UNREPEATABLE_IDLE_MAX: Duration = Duration::from_secs(1);

/// What belongs to a response that is under way.
pub struct Forwarded {
    /// The connection that it comes on; put back when it has ended.
    pub connection: Option<Connection>,
    /// The request's body, if it has one.
    pub activity: Option<Arc<Activity>>,
}

/// Why an attempt gave no response.
enum Attempt {
    /// Nothing was written; here is the request again.
    NotSent(Box<Request<RequestBody>>, Failure),
    /// It may have arrived.
    Lost,
    /// It is over.
    Failed(Failure),
}

/// Which kinds of retry are used up.
#[derive(Default)]
struct Used {
    other: bool,
    fresh: bool,
    except: Option<InstanceId>,
}

/// Sends the request; gives the response's head.
///
/// # Errors
/// What the client is told instead.
pub async fn forward(
    exchange: &mut Exchange,
    mut request: Request<RequestBody>,
    activity: Option<Arc<Activity>>,
) -> Result<(Response<Incoming>, Forwarded), Failure> {
    let mut used = Used::default();
    loop {
        let instance = choose(exchange, used.except)?;
        let repeatable = may_repeat(&request);
        let idle_max = if repeatable { IDLE_FOR_MAX } else { UNREPEATABLE_IDLE_MAX };
        let kept = if used.fresh { None } else { instance.idle.take(Instant::now(), idle_max) };
        let reused = kept.is_some();
        let spare = (reused && repeatable).then(|| copy(&request));
        let attempt = match kept {
            Some(connection) => send(exchange, connection, request, activity.as_deref()).await,
            None => match connect(exchange, &instance).await {
                Some(connection) => send(exchange, connection, request, activity.as_deref()).await,
                None => Err(Attempt::NotSent(Box::new(request), Failure::H21)),
            },
        };
        request = match attempt {
            Ok((response, connection)) => {
                let connection = Some(connection);
                return Ok((response, Forwarded { connection, activity }));
            }
            // A stale connection says nothing about the instance: the same one may be tried.
            Err(Attempt::NotSent(request, _)) if reused => {
                used.fresh = true;
                *request
            }
            Err(Attempt::NotSent(request, failure)) if !used.other => {
                used.other = true;
                used.except = Some(instance.id);
                if !has_other(exchange, instance.id) {
                    return Err(failure);
                }
                *request
            }
            Err(Attempt::NotSent(_, failure) | Attempt::Failed(failure)) => return Err(failure),
            Err(Attempt::Lost) => match spare {
                Some(spare) => {
                    used.fresh = true;
                    spare
                }
                None => return Err(Failure::H13_CLOSED),
            },
        };
        exchange.retries += 1;
    }
}

/// An instance from the table in force, counted.
fn choose(exchange: &mut Exchange, except: Option<InstanceId>) -> Result<Arc<Instance>, Failure> {
    exchange.in_flight = None;
    match exchange.edge.routes.choose(&exchange.host, except) {
        Choice::Instance(entry, in_flight) => {
            let instance = in_flight.instance().clone();
            exchange.entry = Some(entry);
            exchange.in_flight = Some(in_flight);
            if exchange.retries == 0 {
                exchange.queued = exchange.started.elapsed();
            }
            Ok(instance)
        }
        Choice::Absent(_) if except.is_some() => Err(Failure::H21),
        Choice::Absent(entry) => {
            let failure = Failure::absent(entry.absent);
            exchange.entry = Some(entry);
            Err(failure)
        }
        Choice::UnknownDomain => Err(Failure::H40),
        Choice::NoTable => Err(Failure::H99_NO_TABLE),
    }
}

/// Whether there is somebody else to try; otherwise the log keeps naming the one that refused.
fn has_other(exchange: &Exchange, except: InstanceId) -> bool {
    matches!(exchange.edge.routes.choose(&exchange.host, Some(except)), Choice::Instance(..))
}

/// A new connection to an instance; None if it cannot be had.
async fn connect(exchange: &mut Exchange, instance: &Instance) -> Option<Connection> {
    let limits = &exchange.edge.limits;
    let begun = Instant::now();
    let connected = open(instance, limits).await;
    exchange.connecting += begun.elapsed();
    connected
        .inspect_err(|error| {
            tracing::debug!(instance = %instance.id, address = %instance.address, %error, "could not connect");
        })
        .ok()
}

async fn open(instance: &Instance, limits: &Limits) -> std::io::Result<Connection> {
    let stream = timeout(limits.connect_max, TcpStream::connect(instance.address)).await??;
    stream.set_nodelay(true)?;
    let handshake = hyper::client::conn::http1::Builder::new()
        .max_buf_size(limits.head_bytes_max)
        .max_header_size(limits.head_bytes_max)
        .handshake::<_, RequestBody>(TokioIo::new(stream))
        .await;
    let (connection, driver) = handshake.map_err(std::io::Error::other)?;
    let instance = instance.id;
    tokio::spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%instance, %error, "connection ended");
        }
    });
    Ok(connection)
}

/// Sends on one connection and waits for the response's head.
async fn send(
    exchange: &Exchange,
    mut connection: Connection,
    request: Request<RequestBody>,
    activity: Option<&Activity>,
) -> Result<(Response<Incoming>, Connection), Attempt> {
    let mut response = std::pin::pin!(connection.try_send_request(request));
    let sent = Instant::now();
    let limits = &exchange.edge.limits;
    let answered = loop {
        let (deadline, late) = deadline(limits, sent, activity);
        tokio::select! {
            biased;
            answered = &mut response => break answered,
            () = sleep_until(deadline.into()) => {
                // The body may have moved since the timer was set.
                if self::deadline(limits, sent, activity).0 <= Instant::now() {
                    return Err(Attempt::Failed(late));
                }
            }
        }
    };
    match answered {
        Ok(response) => Ok((response, connection)),
        Err(mut failed) => Err(match failed.take_message() {
            Some(request) => Attempt::NotSent(Box::new(request), Failure::H13_CLOSED),
            None if activity.is_some_and(Activity::too_large) => Attempt::Failed(Failure::H41_TOO_LARGE),
            None if failed.error().is_parse() => Attempt::Failed(Failure::H13_GARBLED),
            None => Attempt::Lost,
        }),
    }
}

/// Until when the next sign of life must come, and what it means if it does not: from the app, once it has the whole request,
/// or from the client, whose body is still coming.
fn deadline(limits: &Limits, sent: Instant, activity: Option<&Activity>) -> (Instant, Failure) {
    match activity {
        None => (sent + limits.first_byte_max, Failure::H12),
        Some(body) if body.complete() => (body.last().max(sent) + limits.first_byte_max, Failure::H12),
        Some(body) => (body.last().max(sent) + limits.silence_max, Failure::H15_REQUEST),
    }
}

/// Idempotent and without a body.
fn may_repeat(request: &Request<RequestBody>) -> bool {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    idempotent && request.body().is_end_stream()
}

/// The same request again; it has no body.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::none());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

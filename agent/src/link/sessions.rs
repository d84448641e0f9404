//! Sessions: learns who waits for a stream and opens one for each. A session that breaks off is not resumed; whoever opened it
//! asks again.

use std::sync::Arc;

use berth_wire::attach::PROTOCOL;
use berth_wire::log::LogLine;
use berth_wire::session::{Session, SessionRequest};
use bytes::Bytes;
use reqwest::header::{CONNECTION, UPGRADE};
use reqwest::{Body, Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::client::{BackOff, Link, LinkError, WAIT};
use crate::logs::serve::{Wanted, serve};
use crate::logs::source::{Places, Selection};

/// Streams at a time. Each follower has a thread that mostly sleeps (its stack is 8 KiB touched), and a file descriptor per instance.
const SESSIONS_AT_ONCE: usize = 64;

/// Lines on their way in one stream: what a slow reader holds in memory, 256 lines of at most 10 kB.
const LINES_WAITING_MAX: usize = 256;

/// Session lists are short.
const LIST_BYTES_MAX: usize = 1 << 20;

/// What sessions serve from.
pub trait Scrape: Send + Sync + 'static {
    /// The text of `/metrics`.
    fn scrape(&self) -> impl Future<Output = String> + Send;
}

/// What sessions that go both ways are served by.
pub trait Attend: Send + Sync + 'static {
    /// Serves one until it is over.
    fn attend<C>(&self, request: SessionRequest, connection: C) -> impl Future<Output = ()> + Send
    where
        C: AsyncRead + AsyncWrite + Send + 'static;
}

/// Serves sessions for ever.
pub async fn answer<S: Scrape, A: Attend>(
    link: Link,
    logs: Places,
    metrics: Arc<S>,
    commands: Arc<A>,
) -> std::convert::Infallible {
    let mut back_off = BackOff::default();
    let permits = Arc::new(Semaphore::new(SESSIONS_AT_ONCE));
    loop {
        match ask(&link).await {
            Ok(sessions) => {
                back_off.reset();
                for session in sessions {
                    // Waiting here leaves further sessions at the control plane, where they are bounded, too.
                    let permit = permits.clone().acquire_owned().await;
                    let (link, logs, metrics) = (link.clone(), logs.clone(), metrics.clone());
                    let commands = commands.clone();
                    tokio::spawn(async move {
                        let _permit = permit;
                        let served = match session.request {
                            SessionRequest::Attach { .. } | SessionRequest::Exec { .. } => {
                                connect(&link, session, &*commands).await
                            }
                            SessionRequest::Logs { .. } | SessionRequest::Metrics => {
                                stream(&link, logs, metrics, session).await
                            }
                        };
                        if let Err(error) = served {
                            tracing::debug!(%error, "a session broke off");
                        }
                    });
                }
            }
            Err(error) => back_off.pause(&error).await,
        }
    }
}

async fn ask(link: &Link) -> Result<Vec<Session>, LinkError> {
    let request = link.request(Method::GET, "sessions").query(&[("wait", WAIT.as_secs())]);
    let answer = link.send("GET sessions", request).await?;
    link.json("GET sessions", answer, LIST_BYTES_MAX).await
}

async fn stream<S: Scrape>(
    link: &Link,
    logs: Places,
    metrics: Arc<S>,
    session: Session,
) -> Result<(), LinkError> {
    let body = match session.request {
        SessionRequest::Metrics => Body::from(metrics.scrape().await),
        SessionRequest::Logs { app, process, lines, follow } => {
            let (send, receive) = mpsc::channel(LINES_WAITING_MAX);
            let selection = Selection { places: logs, app, process };
            let wanted = Wanted { selection, lines, follow };
            tokio::task::spawn_blocking(move || serve(wanted, &send));
            Body::wrap_stream(ReceiverStream::new(receive).map(|line| encode(&line)))
        }
        SessionRequest::Attach { .. } | SessionRequest::Exec { .. } => return Ok(()),
    };
    let request = link.request(Method::POST, &format!("sessions/{}", session.id)).body(body);
    let answer = request.send().await.map_err(|e| link.unreachable(&e))?;
    link.accepted("POST session", answer).await.map(drop)
}

/// A session that goes both ways: the connection is upgraded and belongs to the command from there on.
async fn connect<A: Attend>(link: &Link, session: Session, commands: &A) -> Result<(), LinkError> {
    let request = link
        .request(Method::GET, &format!("sessions/{}/stream", session.id))
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, PROTOCOL);
    let mut answer = request.send().await.map_err(|e| link.unreachable(&e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer = link.accepted("GET session stream", answer).await?;
    }
    let connection = answer.upgrade().await.map_err(|e| link.unreachable(&e))?;
    commands.attend(session.request, connection).await;
    Ok(())
}

fn encode(line: &LogLine) -> serde_json::Result<Bytes> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(Bytes::from(text))
}

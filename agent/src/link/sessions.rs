//! Sessions: learns who waits for a stream and opens one for each. A session that breaks off is not resumed; whoever opened it
//! asks again.

use std::path::PathBuf;
use std::sync::Arc;

use berth_wire::log::LogLine;
use berth_wire::session::{Session, SessionRequest};
use bytes::Bytes;
use reqwest::{Body, Method};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::client::{BackOff, Link, LinkError, WAIT};
use crate::logs::serve::{Wanted, serve};

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

/// Serves sessions for ever.
pub async fn answer<S: Scrape>(link: Link, logs: PathBuf, metrics: Arc<S>) -> std::convert::Infallible {
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
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Err(error) = stream(&link, logs, metrics, session).await {
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
    logs: PathBuf,
    metrics: Arc<S>,
    session: Session,
) -> Result<(), LinkError> {
    let body = match session.request {
        SessionRequest::Metrics => Body::from(metrics.scrape().await),
        SessionRequest::Logs { app, process, lines, follow } => {
            let (send, receive) = mpsc::channel(LINES_WAITING_MAX);
            let wanted = Wanted { app, process, lines, follow };
            tokio::task::spawn_blocking(move || serve(&logs, &wanted, &send));
            Body::wrap_stream(ReceiverStream::new(receive).map(|line| encode(&line)))
        }
    };
    let request = link.request(Method::POST, &format!("sessions/{}", session.id)).body(body);
    let answer = request.send().await.map_err(|e| link.unreachable(&e))?;
    link.accepted("POST session", answer).await.map(drop)
}

fn encode(line: &LogLine) -> serde_json::Result<Bytes> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(Bytes::from(text))
}

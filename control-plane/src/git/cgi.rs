//! One run of `git http-backend`: the request's body streams in, the response's out, both as they come.
//!
//! When the client hangs up, a push that git may not yet act on is stopped (its build is not); one whose ref may move
//! runs to its end with nobody reading, so that its release is made.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Response as HttpResponse, StatusCode};
use axum::body::Body;
use axum::response::Response;
use berth_wire::code::Code;
use bytes::Bytes;
use futures_util::StreamExt as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use super::pushes::PushGuard;
use super::reconcile::reconcile;
use crate::app::App;

/// Longest head of a CGI response: git writes five short lines.
const HEAD_BYTES_MAX: u64 = 8 << 10;
/// Chunks of output kept for a slow client.
const CHUNKS_MAX: usize = 16;
/// How long git may take to end after it was told to.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What a run belongs to.
pub struct Run {
    /// The control plane.
    pub app: App,
    /// The push, if it is one.
    pub push: Option<PushGuard>,
    /// One of the few that may run at once.
    pub permit: OwnedSemaphorePermit,
    /// Longest it may take.
    pub time_max: Duration,
}

/// Runs the command with this body and answers as soon as it has written its head.
pub async fn run(mut command: Command, body: Body, run: Run) -> io::Result<Response> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let missing = || io::Error::other("git was started without its pipes");
    let input = child.stdin.take().ok_or_else(missing)?;
    let mut output = BufReader::new(child.stdout.take().ok_or_else(missing)?);
    tokio::spawn(log_errors(child.stderr.take().ok_or_else(missing)?));
    let received = Arc::new(AtomicU64::new(0));
    let pack_bytes_max = run.app.config.push_bytes_max;
    tokio::spawn(feed(body, input, Arc::clone(&received), pack_bytes_max));
    let head = match timeout(run.time_max, head(&mut output)).await {
        Ok(Ok(head)) => head,
        Ok(Err(error)) => {
            stop(&mut child).await;
            return Err(error);
        }
        Err(_) => {
            stop(&mut child).await;
            return Err(io::ErrorKind::TimedOut.into());
        }
    };
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(pump(child, output, sender, received, run));
    let mut response = HttpResponse::builder().status(head.status);
    for (name, value) in head.headers {
        response = response.header(name, value);
    }
    response.body(Body::from_stream(ReceiverStream::new(chunks))).map_err(io::Error::other)
}

/// The body into git. After git has closed its end, as much again is read and thrown away: a client that is still
/// sending would otherwise see a broken connection and not the reason.
async fn feed(body: Body, mut input: ChildStdin, received: Arc<AtomicU64>, pack_bytes_max: u64) {
    let mut body = body.into_data_stream();
    let mut open = true;
    while let Some(Ok(chunk)) = body.next().await {
        let total = received.fetch_add(chunk.len() as u64, Ordering::SeqCst) + chunk.len() as u64;
        if total > 2 * pack_bytes_max {
            return;
        }
        open = open && input.write_all(&chunk).await.is_ok();
    }
}

struct Head {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// `Name: value` lines up to an empty one; `Status:` is the response's (RFC 3875 6.3.3).
async fn head(output: &mut BufReader<ChildStdout>) -> io::Result<Head> {
    let mut head = Head { status: StatusCode::OK, headers: Vec::new() };
    let mut limited = output.take(HEAD_BYTES_MAX);
    let mut line = String::new();
    loop {
        line.clear();
        if limited.read_line(&mut line).await? == 0 {
            return Err(io::Error::other(
                "git http-backend ended before it answered; is git installed whole?",
            ));
        }
        let text = line.trim_end();
        if text.is_empty() {
            return Ok(head);
        }
        let Some((name, value)) = text.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            head.status = code.parse().map_err(io::Error::other)?;
        } else if let (Ok(name), Ok(value)) = (name.parse(), value.parse()) {
            head.headers.push((name, value));
        }
    }
}

async fn log_errors(errors: ChildStderr) {
    // A line of git's is short; a program gone wild is cut off.
    let mut lines = BufReader::new(errors.take(64 << 10)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::warn!(line, "git http-backend");
    }
}

/// Output to the client until git ends, then the end of the push.
async fn pump(
    mut child: Child,
    mut output: BufReader<ChildStdout>,
    sender: mpsc::Sender<io::Result<Bytes>>,
    received: Arc<AtomicU64>,
    run: Run,
) {
    let deadline = Instant::now() + run.time_max;
    let mut listening = true;
    let mut begun = false;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = timeout_at(deadline, output.read(&mut buffer)) => read,
            () = sender.closed(), if listening => {
                listening = false;
                let stoppable = run.push.as_ref().is_none_or(|guard| !guard.push().has_passed());
                if stoppable {
                    signal(&child, Signal::SIGTERM);
                }
                continue;
            }
        };
        let length = match read {
            Ok(Ok(length)) => length,
            Ok(Err(_)) => 0,
            Err(_) => {
                tracing::warn!("a git request took too long and was stopped");
                0
            }
        };
        if length == 0 {
            break;
        }
        if !begun && run.push.is_some() && received.load(Ordering::SeqCst) > run.app.config.push_bytes_max {
            let _ = sender.send(Ok(too_large(run.app.config.push_bytes_max))).await;
        }
        begun = true;
        if listening {
            let _ = sender.send(Ok(Bytes::copy_from_slice(&buffer[..length]))).await;
        }
    }
    // Closing the response tells the client that the push is over: by then it must be.
    stop(&mut child).await;
    finish(run).await;
    drop(sender);
}

async fn finish(run: Run) {
    let Run { app, push, permit, .. } = run;
    if let Some(guard) = push {
        let id = guard.push().app.id;
        drop(guard);
        if let Err(error) = reconcile(&app, id).await {
            tracing::error!(%error, app = %id, "could not bring the repository in line after a push");
        }
    }
    drop(permit);
}

/// Git's own words for a pack above receive.maxInputSize name neither code nor way out: this comes first, as a packet
/// of the error band (gitprotocol-pack(5), side-band-64k).
fn too_large(pack_bytes_max: u64) -> Bytes {
    let words = format!(
        " !     [{}] the push is larger than {} MiB; keep large files out of the repository\n",
        Code::G12,
        pack_bytes_max >> 20
    );
    Bytes::from(format!("{:04x}\u{2}{words}", words.len() + 5))
}

fn signal(child: &Child, signal: Signal) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    // The child leads its own group, and is not reaped while `child` has its id.
    let _ = killpg(Pid::from_raw(pid), signal);
}

/// Waits for git to end, and sees to it.
async fn stop(child: &mut Child) {
    if timeout(Duration::from_millis(200), child.wait()).await.is_ok() {
        return;
    }
    signal(child, Signal::SIGTERM);
    if timeout(STOP_GRACE, child.wait()).await.is_err() {
        signal(child, Signal::SIGKILL);
        let _ = child.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_must_carry_its_own_length() {
        let packet = too_large(5 << 20);
        let length = usize::from_str_radix(std::str::from_utf8(&packet[..4]).unwrap(), 16).unwrap();
        assert_eq!(length, packet.len());
        assert_eq!(packet[4], 2);
    }
}

//! A build's log: lines in the classic style, kept here while the build runs and copied to the control plane in batches.
//! The control plane may be away for a while: nothing is lost, and the build does not wait for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_wire::report::LOG_TAIL_LINES_MAX;
use serde::Deserialize;
use tokio::sync::Notify;

/// The longest log of one build: 100,000 lines of 80 characters. What comes after is left out, and that is said.
const LOG_BYTES_MAX: usize = 8 << 20;
/// How long lines are gathered before they are sent: short enough to be watched, ten requests a second at most.
const BATCH: Duration = Duration::from_millis(100);
/// How long a refused or failed sending waits before it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How long the end of the log may take to arrive once the build is over. Its outcome travels in the report, not here.
const FLUSH_MAX: Duration = Duration::from_secs(15);
/// The longest line: as the launcher's for instances.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Where a build writes what it does.
#[derive(Debug, Clone)]
pub struct BuildLog(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    written: Notify,
}

#[derive(Debug, Default)]
struct State {
    text: Vec<u8>,
    partial: Vec<u8>,
    tail: VecDeque<String>,
    full: bool,
    closed: bool,
}

impl Default for BuildLog {
    fn default() -> Self {
        Self::new()
    }
}

impl BuildLog {
    /// An empty log.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves at worst half a line.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A headline: `-----> text`.
    pub fn heading(&self, text: &str) {
        self.line(&format!("-----> {text}"));
    }

    /// A line below a headline.
    pub fn detail(&self, text: &str) {
        self.line(&format!("       {text}"));
    }

    /// A line that should not be overlooked.
    pub fn warning(&self, text: &str) {
        self.line(&format!(" !     {text}"));
    }

    fn line(&self, text: &str) {
        self.output(format!("{text}\n").as_bytes());
    }

    /// Output of a step, as it comes; cut into lines here.
    pub fn output(&self, bytes: &[u8]) {
        let mut state = self.state();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            state.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || state.partial.len() >= LINE_BYTES_MAX {
                state.end_line();
            }
        }
        drop(state);
        self.0.written.notify_one();
    }

    /// The last lines, for a trouble's `log_tail`.
    pub fn tail(&self) -> Vec<String> {
        self.state().tail.iter().cloned().collect()
    }

    /// Says that nothing more will be written: [`copy_to`] then ends once everything has arrived.
    pub fn close(&self) {
        let mut state = self.state();
        state.end_line();
        state.closed = true;
        drop(state);
        self.0.written.notify_one();
    }

    /// What is to be sent from an offset on, and whether more may come.
    fn from(&self, offset: usize) -> (Vec<u8>, bool) {
        let state = self.state();
        (state.text.get(offset..).unwrap_or_default().to_vec(), state.closed)
    }
}

impl State {
    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        // A progress bar overwrites its line: what stays to be seen is what came last.
        let shown = text.trim_end().rsplit('\r').next().unwrap_or_default();
        if !shown.is_empty() {
            if self.tail.len() == LOG_TAIL_LINES_MAX {
                self.tail.pop_front();
            }
            self.tail.push_back(shown.to_owned());
        }
        if self.full {
            return;
        }
        if self.text.len() + shown.len() > LOG_BYTES_MAX {
            self.full = true;
            self.text.extend_from_slice(b" !     The log is longer than 8 MiB; the rest is left out\n");
            return;
        }
        self.text.extend_from_slice(shown.as_bytes());
        self.text.push(b'\n');
    }
}

#[derive(Debug, Deserialize)]
struct Stored {
    length: usize,
}

/// Copies a log to the control plane until it is closed and has arrived, or cannot arrive any more.
///
/// `request` makes an empty `POST …/log?offset=N`. The control plane ignores bytes that it has, so that a repeat does
/// no harm; where it has less than was sent (it was restored), it says so, and gets the rest again.
pub async fn copy_to(log: BuildLog, request: impl Fn(usize) -> reqwest::RequestBuilder) {
    // A log that exists already is of an earlier try of the same build: this one goes on after it.
    let mut base = None;
    let (mut sent, mut deadline) = (0, None);
    loop {
        let (text, closed) = log.from(sent);
        if closed && text.is_empty() {
            return;
        }
        if closed {
            let end = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + FLUSH_MAX);
            if tokio::time::Instant::now() >= end {
                tracing::warn!(
                    bytes = text.len(),
                    "the end of a build's log did not reach the control plane"
                );
                return;
            }
        }
        if text.is_empty() {
            log.0.written.notified().await;
            tokio::time::sleep(BATCH).await;
            continue;
        }
        let from = match base {
            Some(base) => base,
            None => match post(request(0), Vec::new()).await {
                Some(length) => *base.insert(length),
                None => {
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            },
        };
        match post(request(from + sent), text).await {
            Some(length) => sent = length.saturating_sub(from),
            None => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Sends one batch; the stored length, if there was an answer with one.
async fn post(request: reqwest::RequestBuilder, body: Vec<u8>) -> Option<usize> {
    let answer = request.body(body).timeout(Duration::from_secs(10)).send().await;
    match answer {
        // 409 is the control plane's word for a gap; it says where to go on.
        Ok(answer) if answer.status().is_success() || answer.status() == reqwest::StatusCode::CONFLICT => {
            answer.json::<Stored>().await.ok().map(|stored| stored.length)
        }
        Ok(answer) => {
            tracing::warn!(status = answer.status().as_u16(), "the control plane refused a build's log");
            None
        }
        Err(error) => {
            tracing::debug!(%error, "a build's log could not be sent");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::{Query, State as Shared};
    use axum::http::StatusCode;
    use std::collections::BTreeMap;

    #[test]
    fn output_must_be_cut_into_lines_and_the_last_ones_kept() {
        let log = BuildLog::new();
        log.heading("Python app detected");
        log.output(b"10%\r50%\r100%\nhalf");
        log.output(b" a line\n\n");
        log.close();
        let (text, closed) = log.from(0);
        assert!(closed);
        assert_eq!(String::from_utf8(text).unwrap(), "-----> Python app detected\n100%\nhalf a line\n\n");
        assert_eq!(log.tail(), ["-----> Python app detected", "100%", "half a line"]);
    }

    #[test]
    fn a_log_without_end_must_be_bounded() {
        let log = BuildLog::new();
        for _ in 0..(LOG_BYTES_MAX / 1_000 + 100) {
            log.output(&[b'x'; 1_000]);
            log.output(b"\n");
        }
        let (text, _) = log.from(0);
        assert!(text.len() <= LOG_BYTES_MAX + 100 && text.ends_with(b"left out\n"));
        assert_eq!(log.tail().len(), LOG_TAIL_LINES_MAX);
    }

    type Store = Arc<Mutex<(Vec<u8>, usize)>>;

    /// A control plane that refuses every third request.
    async fn store(
        Shared(store): Shared<Store>,
        Query(query): Query<BTreeMap<String, usize>>,
        body: axum::body::Bytes,
    ) -> (StatusCode, String) {
        let mut store = store.lock().unwrap();
        store.1 += 1;
        if store.1 % 3 == 0 {
            return (StatusCode::SERVICE_UNAVAILABLE, String::new());
        }
        let (offset, length) = (query["offset"], store.0.len());
        if offset > length {
            return (StatusCode::CONFLICT, format!("{{\"length\":{length}}}"));
        }
        let new = body.get(length - offset..).unwrap_or_default().to_vec();
        store.0.extend(new);
        (StatusCode::OK, format!("{{\"length\":{}}}", store.0.len()))
    }

    #[tokio::test]
    async fn every_line_must_arrive_once_after_what_an_earlier_try_left() {
        let stored: Store = Arc::new(Mutex::new((b"earlier\n".to_vec(), 0)));
        let app = axum::Router::new().route("/log", axum::routing::post(store)).with_state(stored.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/log", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let (client, log) = (reqwest::Client::new(), BuildLog::new());
        let copied =
            tokio::spawn(copy_to(log.clone(), move |offset| client.post(&url).query(&[("offset", offset)])));
        log.heading("one");
        log.heading("two");
        log.close();
        copied.await.unwrap();
        assert_eq!(String::from_utf8_lossy(&stored.lock().unwrap().0), "earlier\n-----> one\n-----> two\n");
    }
}

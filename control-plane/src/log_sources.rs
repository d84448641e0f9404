//! The hosts that an app's log comes from: one session each (see [`crate::sessions`]), opened again when an agent
//! restarts, and on hosts that join while somebody follows. Lines come in each host's order; merging is the reader's.

use std::collections::HashMap;
use std::time::Duration;

use berth_wire::id::{AppId, HostId};
use berth_wire::log::{LogLine, LogSource};
use berth_wire::session::SessionRequest;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::store::{StoreError, hosts};

/// Lines kept for a slow reader; then the agents wait.
const LINES_MAX: usize = 256;
/// History asked for when a session is opened again: what an app may have written meanwhile.
const CATCH_UP_LINES: u32 = 1_000;
/// Pause before that.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest JSON line of an agent: the longest text, each byte escaped as six.
const JSON_BYTES_MAX: usize = 6 * LogLine::TEXT_BYTES_MAX + 1_000;

/// What somebody wants to read.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Whose log.
    pub app: AppId,
    /// Only this process type or instance.
    pub process: Option<String>,
    /// How many of the last lines.
    pub lines: u32,
    /// Whether to go on.
    pub follow: bool,
}

/// What came.
#[derive(Debug)]
pub enum Heard {
    /// A line.
    Line(LogLine),
    /// No host will say anything more.
    End,
}

/// The open sessions. Dropped, they end.
pub struct Sources {
    app: App,
    wish: Wish,
    readers: HashMap<HostId, JoinHandle<()>>,
    lines: mpsc::Receiver<LogLine>,
    sender: Option<mpsc::Sender<LogLine>>,
    silent: Vec<String>,
}

impl Sources {
    /// Asks every host that is up.
    ///
    /// # Errors
    /// The store failed.
    pub async fn open(app: &App, wish: &Wish) -> Result<Self, StoreError> {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let mut sources = Self {
            app: app.clone(),
            wish: wish.clone(),
            readers: HashMap::new(),
            lines,
            sender: Some(sender),
            silent: Vec::new(),
        };
        sources.ask(wish.lines, None).await?;
        if !wish.follow {
            // The end is when the last reader has dropped its own.
            sources.sender = None;
        }
        Ok(sources)
    }

    /// Asks hosts that came up meanwhile.
    ///
    /// # Errors
    /// The store failed.
    pub async fn refresh(&mut self) -> Result<(), StoreError> {
        let now = self.app.clock.now();
        self.ask(CATCH_UP_LINES, Some(now)).await
    }

    async fn ask(&mut self, lines: u32, after: Option<Timestamp>) -> Result<(), StoreError> {
        let Some(sender) = self.sender.clone() else { return Ok(()) };
        let now = self.app.clock.now();
        self.silent.clear();
        for host in hosts::list(&mut *self.app.store.read().await?).await? {
            if !host.is_up(now) {
                if host.seen_at.is_some() {
                    self.silent.push(host.name);
                }
                continue;
            }
            if self.readers.contains_key(&host.id) {
                continue;
            }
            let wish = Wish { lines, ..self.wish.clone() };
            let reader =
                Reader { app: self.app.clone(), host: host.id, wish, last: after, sender: sender.clone() };
            self.readers.insert(host.id, tokio::spawn(reader.run()));
        }
        Ok(())
    }

    /// The next line of any host.
    pub async fn next(&mut self) -> Heard {
        self.lines.recv().await.map_or(Heard::End, Heard::Line)
    }

    /// A line about each host that is not connected, whose lines are therefore missing.
    pub fn missing(&self) -> Vec<LogLine> {
        let at = self.app.clock.now();
        let line = |name: &String| LogLine {
            at,
            source: LogSource::Berth,
            process: "logs".to_owned(),
            text: format!("the host {name} is not connected: its lines are missing here"),
        };
        self.silent.iter().map(line).collect()
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        for reader in self.readers.values() {
            reader.abort();
        }
    }
}

/// Reads one host.
struct Reader {
    app: App,
    host: HostId,
    wish: Wish,
    /// The newest line that was passed on.
    last: Option<Timestamp>,
    sender: mpsc::Sender<LogLine>,
}

impl Reader {
    async fn run(mut self) {
        loop {
            if self.read().await.is_none() || !self.wish.follow {
                return;
            }
            self.wish.lines = CATCH_UP_LINES;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// One session to its end; none if there is nobody to read for.
    async fn read(&mut self) -> Option<()> {
        let request = SessionRequest::Logs {
            app: self.wish.app,
            process: self.wish.process.clone(),
            lines: self.wish.lines,
            follow: self.wish.follow,
        };
        let mut stream = match self.app.sessions.open(self.host, request) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, host = %self.host, "a log session could not be opened");
                return Some(());
            }
        };
        let repeated = self.last;
        let mut partial = Vec::new();
        while let Some(chunk) = stream.next().await {
            for part in chunk.split_inclusive(|b| *b == b'\n') {
                partial.extend_from_slice(part);
                if partial.len() > JSON_BYTES_MAX {
                    partial.clear();
                }
                if !partial.ends_with(b"\n") {
                    continue;
                }
                let line: Option<LogLine> = serde_json::from_slice(&partial).ok();
                partial.clear();
                let Some(line) = line.filter(|line| repeated.is_none_or(|last| line.at > last)) else {
                    continue;
                };
                self.last = self.last.max(Some(line.at));
                self.sender.send(line).await.ok()?;
            }
        }
        Some(())
    }
}

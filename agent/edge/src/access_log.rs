//! One JSON line per request in `access.log`, written by a thread of its own: a full or slow disk costs lines, never
//! requests. Size-capped, one rotation. What a line says is [`Line`]; query strings are left out, they carry secrets.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::id::{AppId, InstanceId};
use berth_wire::name::AppName;
use serde::{Serialize, Serializer};

/// Most lines that wait for the disk: a second of 16,000 requests, about 8 MB.
const QUEUE_MAX: usize = 16_384;

/// Lines are gathered this long before they are written: one write for many requests, and still at once to a person.
const GATHER_FOR: Duration = Duration::from_millis(50);

/// One request.
#[derive(Debug, Serialize)]
pub struct Line {
    /// When its head had been read.
    pub time: jiff::Timestamp,
    /// GET, POST, …
    #[serde(serialize_with = "as_text")]
    pub method: http::Method,
    /// What the client asked for, as the table's key; empty if it was no host.
    pub host: String,
    /// Path without query.
    #[serde(serialize_with = "path_only")]
    pub path: http::Uri,
    /// What the client got; 499 if it left before.
    pub status: u16,
    /// Bytes of the response's body that were passed on (of an upgraded connection: both ways).
    pub bytes: u64,
    /// From the head to the choice of an instance.
    pub queue_ms: f64,
    /// Connecting to it; 0 on a connection that was open.
    pub connect_ms: f64,
    /// From then to the last byte.
    pub service_ms: f64,
    /// The client.
    pub client: std::net::IpAddr,
    /// As the app got it.
    pub request_id: String,
    /// The app, if the domain is known.
    pub app: Option<AppName>,
    /// Its id.
    pub app_id: Option<AppId>,
    /// Who answered.
    pub instance: Option<InstanceId>,
    /// `web.1`.
    pub process: Option<String>,
    /// What went wrong, if it is the edge that says so.
    pub code: Option<Code>,
    /// Attempts beyond the first.
    pub retries: u32,
    /// Whether the connection became a tunnel (WebSocket).
    pub upgraded: bool,
}

fn as_text<S: Serializer>(method: &http::Method, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(method.as_str())
}

fn path_only<S: Serializer>(uri: &http::Uri, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(uri.path())
}

/// Where lines are handed in.
pub struct AccessLog {
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<Line>,
    dropped: u64,
    closed: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessLog {
    /// Starts the writer. A file that cannot be opened is tried again with every batch; the lines are lost and counted.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let mut target =
            Target { path: dir.join("access.log"), bytes_max, open: None, lost: 0, failing: false };
        let theirs = queue.clone();
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&theirs, &mut target))?;
        Ok(Self { queue, writer: Mutex::new(Some(writer)) })
    }

    /// Hands in a line. Never blocks on the disk; above the bound the line is dropped and counted.
    pub fn push(&self, line: Line) {
        let mut waiting = self.queue.waiting();
        if waiting.lines.len() >= QUEUE_MAX {
            waiting.dropped += 1;
            return;
        }
        waiting.lines.push(line);
        let first = waiting.lines.len() == 1;
        drop(waiting);
        if first {
            self.queue.filled.notify_one();
        }
    }

    /// Writes what waits and ends.
    pub fn close(&self) {
        self.queue.waiting().closed = true;
        self.queue.filled.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the access log's writer panicked");
        }
    }
}

/// The writer's thread.
fn write_lines(queue: &Queue, target: &mut Target) {
    let mut batch = Vec::new();
    loop {
        let mut waiting = queue.waiting();
        while waiting.lines.is_empty() && !waiting.closed {
            waiting = queue.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if !waiting.closed {
            waiting = queue
                .filled
                .wait_timeout_while(waiting, GATHER_FOR, |waiting| !waiting.closed)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        std::mem::swap(&mut batch, &mut waiting.lines);
        let dropped = std::mem::take(&mut waiting.dropped);
        let closed = waiting.closed;
        drop(waiting);
        target.write_batch(&batch, dropped);
        batch.clear();
        if closed {
            return;
        }
    }
}

/// The file.
struct Target {
    path: PathBuf,
    bytes_max: u64,
    open: Option<(BufWriter<File>, u64)>,
    /// Lines lost and not yet said so in the file.
    lost: u64,
    failing: bool,
}

impl Target {
    fn write_batch(&mut self, batch: &[Line], dropped: u64) {
        self.lost += dropped;
        match self.try_write(batch) {
            Ok(()) => {
                self.lost = 0;
                self.failing = false;
            }
            Err(error) => {
                self.lost += batch.len() as u64;
                self.open = None;
                if !self.failing {
                    tracing::error!(path = %self.path.display(), %error, "could not write the access log; its lines are lost and counted");
                }
                self.failing = true;
            }
        }
    }

    fn try_write(&mut self, batch: &[Line]) -> io::Result<()> {
        let mut text = Vec::with_capacity(batch.len() * 480);
        if self.lost > 0 {
            let lost = self.lost;
            writeln!(text, r#"{{"time":"{}","lines_lost":{lost}}}"#, jiff::Timestamp::now())?;
        }
        for line in batch {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        let added = text.len() as u64;
        let full = self.open.as_ref().is_some_and(|(_, size)| size + added > self.bytes_max && *size > 0);
        if full {
            self.open = None;
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        if self.open.is_none() {
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
            let size = file.metadata()?.len();
            self.open = Some((BufWriter::with_capacity(1 << 16, file), size));
        }
        if let Some((file, size)) = &mut self.open {
            file.write_all(&text)?;
            file.flush()?;
            *size += added;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str) -> Line {
        Line {
            time: jiff::Timestamp::UNIX_EPOCH,
            method: http::Method::GET,
            host: "shop.localhost".to_owned(),
            path: path.parse().unwrap(),
            status: 200,
            bytes: 5,
            queue_ms: 0.0,
            connect_ms: 0.1,
            service_ms: 1.5,
            client: [127, 0, 0, 1].into(),
            request_id: "r".to_owned(),
            app: None,
            app_id: None,
            instance: None,
            process: None,
            code: Some(Code::H40),
            retries: 0,
            upgraded: false,
        }
    }

    #[test]
    fn a_line_must_leave_out_the_query() {
        let dir = tempfile::tempdir().unwrap();
        let log = AccessLog::start(dir.path(), 1 << 20).unwrap();
        log.push(line("/a/b?token=secret"));
        log.close();
        let text = fs::read_to_string(dir.path().join("access.log")).unwrap();
        assert!(text.contains(r#""path":"/a/b""#) && text.contains(r#""code":"H40""#), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn the_files_must_stay_below_their_cap_and_lose_count_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut target = Target {
            path: dir.path().join("access.log"),
            bytes_max: 4_000,
            open: None,
            lost: 0,
            failing: false,
        };
        for _ in 0..50 {
            target.write_batch(&[line("/")], 0);
        }
        for name in ["access.log", "access.log.1"] {
            let size = fs::metadata(dir.path().join(name)).unwrap().len();
            assert!((1..=4_000).contains(&size), "{name} has {size} bytes");
        }
        target.path = dir.path().join("absent/access.log");
        target.open = None;
        target.write_batch(&[line("/")], 2);
        assert_eq!(target.lost, 3);
        target.path = dir.path().join("access.log");
        target.write_batch(&[line("/")], 0);
        let text = fs::read_to_string(&target.path).unwrap();
        assert!(text.contains(r#""lines_lost":3"#), "{text}");
    }
}

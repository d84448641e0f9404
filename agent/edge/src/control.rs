//! The agent's socket, `edge.sock`: takes tables, stores and acknowledges them, says what is in flight to instances
//! that left. The protocol is `berth_wire::edge`. Requests never wait for anything here.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use berth_wire::edge::{EdgeStats, FromEdge, LINE_BYTES_MAX, Table, ToEdge};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::Edge;
use crate::routes::Refused;
use crate::table_file::TableFile;

/// Longest that the agent may leave an answer unread.
const SEND_MAX: Duration = Duration::from_secs(10);

/// Most agents at once: one, and another that starts while the first one's end is not seen yet, and a debugger.
const AGENTS_MAX: usize = 4;

/// Tables from wherever they come, one at a time: the file always holds the table in force or an older one that was never
/// replaced by an acknowledged one.
pub struct Tables {
    edge: Arc<Edge>,
    file: TableFile,
    /// The number that is stored.
    stored: Mutex<u64>,
}

impl Tables {
    /// Puts the stored table in force.
    pub fn start(edge: Arc<Edge>, file: TableFile) -> Self {
        let table = file.load();
        let number = table.as_ref().map_or(0, |table| table.number);
        if let Some(table) = table {
            tracing::info!(number, domains = table.domains.len(), "serving the stored route table");
            if let Err(error) = edge.routes.swap(table, Instant::now()) {
                tracing::error!(%error, "the stored route table was not taken");
            }
        }
        Self { edge, file, stored: Mutex::new(number) }
    }

    /// Puts a table in force and stores it, off the threads that serve requests. The number to acknowledge; None if
    /// it must not be.
    async fn take(&self, table: Table) -> Option<u64> {
        let mut stored = self.stored.lock().await;
        let (edge, file, before) = (self.edge.clone(), self.file.clone(), *stored);
        let taken = tokio::task::spawn_blocking(move || swap_and_store(&edge, &file, table, before)).await;
        let number = taken.unwrap_or_else(|error| {
            tracing::error!(%error, "route table not taken");
            None
        })?;
        *stored = number;
        Some(number)
    }

    /// The number that may be acknowledged now: in force and stored.
    async fn settled(&self) -> u64 {
        *self.stored.lock().await
    }
}

/// The number that is in force and stored afterwards, if both are the same.
fn swap_and_store(edge: &Edge, file: &TableFile, table: Table, stored: u64) -> Option<u64> {
    let number = table.number;
    match edge.routes.swap(table.clone(), Instant::now()) {
        Ok(_) if stored == number => return Some(number),
        Ok(_) => {}
        Err(error @ Refused::Older { current, .. }) => {
            tracing::warn!(%error, "route table ignored");
            return (stored == current).then_some(current);
        }
        Err(error @ Refused::Differs { .. }) => {
            tracing::error!(%error, "route table ignored");
            return None;
        }
    }
    match file.store(&table) {
        Ok(()) => Some(number),
        Err(error) => {
            tracing::error!(%error, number, "the route table is in force but an older one is still on disk; not acknowledged");
            None
        }
    }
}

/// Binds `edge.sock`, in the place of one that a killed edge (or one that is about to end) left. Only the edge's user and root can connect.
///
/// # Errors
/// When the directory cannot be written or the path is too long for a socket (107 bytes).
pub fn bind(dir: &Path) -> io::Result<UnixListener> {
    let temporary = dir.join(format!("edge.sock.{}", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
    fs::rename(&temporary, dir.join("edge.sock"))?;
    Ok(listener)
}

/// Serves agents until dropped.
pub async fn serve_agents(listener: UnixListener, tables: Arc<Tables>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(AGENTS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let tables = tables.clone();
                tokio::spawn(async move {
                    tracing::info!("agent connected");
                    match converse(stream, &tables).await {
                        Ok(()) => tracing::info!("agent disconnected; serving the last table"),
                        Err(error) => tracing::warn!(%error, "agent disconnected; serving the last table"),
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::error!(%error, "could not accept the agent");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One agent, until it leaves.
async fn converse(stream: UnixStream, tables: &Tables) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::with_capacity(1 << 16, read);
    let mut drained = tables.edge.routes.drained();
    let settled = tables.settled().await;
    if settled > 0 {
        send(&mut write, &FromEdge::Ack { number: settled }).await?;
    }
    send_retired(&mut write, tables).await?;
    let mut line = Vec::new();
    loop {
        // `read_until` keeps what it has read in `line`, so that being dropped by the other branch loses nothing.
        let left = LINE_BYTES_MAX.saturating_sub(line.len() as u64);
        let mut bounded = (&mut read).take(left);
        tokio::select! {
            got = bounded.read_until(b'\n', &mut line) => {
                got?;
                if !line.ends_with(b"\n") {
                    return if line.is_empty() { Ok(()) } else { Err(io::Error::other("half a message, or one that is too long")) };
                }
                let whole = std::mem::take(&mut line);
                let message = tokio::task::spawn_blocking(move || serde_json::from_slice(&whole)).await??;
                answer(message, &mut write, tables).await?;
            }
            changed = drained.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                send_retired(&mut write, tables).await?;
            }
        }
    }
}

async fn answer(message: ToEdge, write: &mut OwnedWriteHalf, tables: &Tables) -> io::Result<()> {
    match message {
        ToEdge::Table(table) => {
            if let Some(number) = tables.take(table).await {
                send(write, &FromEdge::Ack { number }).await?;
                send_retired(write, tables).await?;
            }
            Ok(())
        }
        ToEdge::Stats => {
            let stats = EdgeStats {
                instances: tables.edge.routes.stats(),
                errors: tables.edge.stats.errors(),
                connections: tables.edge.stats.connections.load(Ordering::Relaxed),
            };
            send(write, &FromEdge::Stats(stats)).await
        }
    }
}

/// Says what is in flight to instances that left.
async fn send_retired(write: &mut OwnedWriteHalf, tables: &Tables) -> io::Result<()> {
    let (number, in_flight) = tables.edge.routes.retired();
    send(write, &FromEdge::Retired { number, in_flight }).await
}

async fn send(write: &mut OwnedWriteHalf, message: &FromEdge) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    timeout(SEND_MAX, write.write_all(&line)).await.map_err(io::Error::from)?
}

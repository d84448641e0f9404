//! The conversation with the edge: connects, reconnects, sends the newest table, asks for counters, takes in what
//! the edge says. The protocol is `berth_wire::edge`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_wire::edge::{FromEdge, LINE_BYTES_MAX, Table, ToEdge};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Shared;

/// How often the edge's counters are read: twice per 10 s sample.
pub const STATS_EVERY: Duration = Duration::from_secs(5);

/// Between attempts to connect. The launcher restarts a killed edge after 100 ms.
const RECONNECT_AFTER: Duration = Duration::from_millis(100);

/// Longest that the edge may take to read a table; it reads at once, so a longer wait means it hangs.
const SEND_MAX: Duration = Duration::from_secs(10);

/// Runs until dropped.
pub(super) async fn keep_connected(socket: PathBuf, shared: Arc<Shared>) {
    let mut reported = false;
    loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => {
                tracing::info!(socket = %socket.display(), "edge connected");
                set_connected(&shared, true);
                let ended = converse(stream, &shared).await;
                set_connected(&shared, false);
                let reason = ended.err().map_or_else(|| "it closed".to_owned(), |error| error.to_string());
                tracing::warn!(reason, "edge disconnected; it keeps serving its last table if it runs");
                reported = false;
            }
            Err(error) if !reported => {
                report_absent(&socket, &error);
                reported = true;
            }
            Err(_) => {}
        }
        sleep(RECONNECT_AFTER).await;
    }
}

fn report_absent(socket: &Path, error: &io::Error) {
    tracing::warn!(
        socket = %socket.display(),
        %error,
        "could not connect to the edge; routes do not change and addresses are held until it is back",
    );
}

fn set_connected(shared: &Shared, connected: bool) {
    let mut state = shared.state();
    state.journal.connection(connected);
    state.disconnected_since = (!connected).then(Instant::now);
    shared.show(&state);
}

/// One connection, until either side ends it.
async fn converse(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let (read, write) = stream.into_split();
    tokio::select! {
        ended = send(write, shared) => ended,
        ended = receive(read, shared) => ended,
    }
}

/// Sends the newest table, then each newer one, and the request for counters.
async fn send(mut write: OwnedWriteHalf, shared: &Shared) -> io::Result<()> {
    let mut tables = shared.table.subscribe();
    tables.mark_changed();
    let mut stats = interval(STATS_EVERY);
    stats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            changed = tables.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let table = tables.borrow_and_update().clone();
                match table {
                    Some(table) => ToEdge::Table(Table::clone(&table)),
                    None => continue,
                }
            }
            _ = stats.tick() => ToEdge::Stats,
        };
        let mut line = serde_json::to_vec(&message).map_err(io::Error::other)?;
        line.push(b'\n');
        timeout(SEND_MAX, write.write_all(&line)).await.map_err(io::Error::from)??;
    }
}

/// Takes in what the edge says.
async fn receive(read: OwnedReadHalf, shared: &Shared) -> io::Result<()> {
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut read).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        match serde_json::from_slice(&line)? {
            FromEdge::Ack { number } => acked(shared, number),
            FromEdge::Retired { number, in_flight } => {
                let mut state = shared.state();
                state.journal.retired(number, in_flight);
                shared.show(&state);
            }
            FromEdge::Stats(stats) => {
                shared.stats.send_replace(stats);
            }
        }
    }
}

/// An edge that has seen higher numbers than this agent would ignore its tables (the agent's data directory
/// was lost): continue above them.
fn acked(shared: &Shared, number: u64) {
    let mut state = shared.state();
    let ahead = number > state.journal.newest();
    if ahead {
        state.counter.raise(number);
        let table = shared.table.borrow().clone();
        if let Some(table) = table
            && let Err(error) = shared.hand_out(&mut state, table.domains.clone())
        {
            tracing::error!(%error, "could not renumber the route table");
        }
    } else {
        state.journal.acked(number);
    }
    shared.show(&state);
}

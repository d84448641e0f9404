//! What the edge should route, what it does route, and the two questions that depend on it: may this
//! instance be stopped, may its address be given to another.
//!
//! Here: the handle ([`Routes`]), the numbering of tables and the answers. The conversation with the edge is in [`link`], the
//! numbers on disk in [`counter`], the bookkeeping (pure) in [`journal`]. Which instance is healthy is decided elsewhere.
//!
//! ```text
//!   publish(domains) ──> table N+1 ──> edge: swap, store ──> Ack N+1 ──> Retired {instance: in flight}
//!                                                                └─> is_quiet(instance): the newest table that
//!                                                                    had it is older than the ack, none in flight
//! ```

mod counter;
mod journal;
mod link;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_wire::edge::{Backend, EdgeStats, Table};
use berth_wire::id::InstanceId;
use berth_wire::name::Domain;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use counter::Counter;
pub use counter::CounterError;
use journal::Journal;

/// How long the edge may be gone before stopping an instance no longer waits for it. A killed edge is back in
/// 100 ms to 5 s; one that is gone for longer has no requests in flight. Addresses are held all the same: the next edge starts
/// from the table on its disk.
pub const EDGE_ABSENT_MAX: Duration = Duration::from_secs(10);

/// What the edge does, as far as the agent knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutesStatus {
    /// Whether the edge is connected.
    pub connected: bool,
    /// The newest table handed out; 0 before the first.
    pub published: u64,
    /// The newest table of this agent process that the edge acknowledged; 0 before the first.
    pub acked: u64,
    /// The instances in that table.
    pub serving: BTreeSet<InstanceId>,
    /// Requests in flight to instances that are in no table any more; only those above zero.
    pub retired: BTreeMap<InstanceId, u32>,
}

/// The agent's side of the edge. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Routes {
    shared: Arc<Shared>,
    _link: Arc<AbortOnDropHandle<()>>,
}

/// What the handle and the connection's task share.
struct Shared {
    state: Mutex<State>,
    /// The newest table, for the connection's task.
    table: watch::Sender<Option<Arc<Table>>>,
    status: watch::Sender<RoutesStatus>,
    stats: watch::Sender<EdgeStats>,
}

struct State {
    counter: Counter,
    journal: Journal,
    disconnected_since: Option<Instant>,
}

impl Routes {
    /// Starts talking to the edge at `edge_socket`; it need not be there yet. `state_dir` keeps the table counter.
    ///
    /// # Errors
    /// When the counter cannot be read or written.
    pub fn start(edge_socket: &Path, state_dir: &Path) -> Result<Routes, CounterError> {
        let state = State {
            counter: Counter::open(state_dir)?,
            journal: Journal::default(),
            disconnected_since: Some(Instant::now()),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            table: watch::Sender::new(None),
            status: watch::Sender::new(RoutesStatus::default()),
            stats: watch::Sender::new(EdgeStats::default()),
        });
        let task = tokio::spawn(link::keep_connected(edge_socket.to_owned(), shared.clone()));
        Ok(Routes { shared, _link: Arc::new(AbortOnDropHandle::new(task)) })
    }

    /// Routes exactly these domains from now on. Returns the table's number; the same domains again are the same table.
    ///
    /// # Errors
    /// When the counter cannot be written: the edge then keeps the table it has.
    pub fn publish(&self, domains: BTreeMap<Domain, Backend>) -> Result<u64, CounterError> {
        let mut state = self.shared.state();
        if let Some(table) = self.shared.table.borrow().as_ref()
            && table.domains == domains
        {
            return Ok(table.number);
        }
        self.shared.hand_out(&mut state, domains)
    }

    /// What the edge does; changes wake the receiver.
    pub fn status(&self) -> watch::Receiver<RoutesStatus> {
        self.shared.status.subscribe()
    }

    /// The edge's counters, every [`link::STATS_EVERY`].
    pub fn stats(&self) -> watch::Receiver<EdgeStats> {
        self.shared.stats.subscribe()
    }

    /// Whether no request can reach this instance's address any more: the edge acknowledged a table without it, on the connection
    /// open now, and has nothing in flight to it. What must be true before its address goes to another.
    pub fn is_quiet(&self, instance: InstanceId) -> bool {
        self.shared.state().journal.is_quiet(instance)
    }

    /// Whether stopping this instance can hurt no request that could be spared: it is quiet, or it is in no table and
    /// the edge has been gone for [`EDGE_ABSENT_MAX`].
    pub fn may_stop(&self, instance: InstanceId) -> bool {
        let state = self.shared.state();
        let absent = state.disconnected_since.is_some_and(|since| since.elapsed() >= EDGE_ABSENT_MAX);
        state.journal.is_quiet(instance) || (absent && !state.journal.is_published(instance))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next table and wakes the connection's task.
    fn hand_out(&self, state: &mut State, domains: BTreeMap<Domain, Backend>) -> Result<u64, CounterError> {
        let number = state.counter.next()?;
        let table = Arc::new(Table { number, domains });
        state.journal.published(&table);
        self.table.send_replace(Some(table));
        self.show(state);
        Ok(number)
    }

    /// Publishes the status if it changed.
    fn show(&self, state: &State) {
        let status = state.journal.status();
        self.status.send_if_modified(|shown| {
            let changed = *shown != status;
            if changed {
                *shown = status;
            }
            changed
        });
    }
}

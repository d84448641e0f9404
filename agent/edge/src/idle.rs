//! Connections to one instance that wait for the next request. Bounded, newest first (the oldest is the likeliest to
//! be closed by the instance), emptied at once when the instance leaves the table.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;

use crate::proxy::body::RequestBody;

/// Most idle connections per instance: enough for a burst of as many requests at once; 1,000 instances then hold at most 64,000.
const IDLE_MAX: usize = 64;

/// Longest idle. Common servers close after 2 s (gunicorn), 5 s (Node) or 60 s and more; theirs is noticed at once.
const IDLE_FOR_MAX: Duration = Duration::from_secs(60);

/// A connection that takes requests.
pub type Connection = SendRequest<RequestBody>;

/// The idle connections of an instance.
#[derive(Default)]
pub struct IdlePool(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    closed: bool,
    connections: Vec<(Connection, Instant)>,
}

impl IdlePool {
    /// The newest one that can take a request now.
    pub fn take(&self) -> Option<Connection> {
        let mut inner = self.lock();
        // One that is neither ready nor closed has just been put back and its task has not run yet: leave it.
        let mut at = inner.connections.len();
        while at > 0 {
            at -= 1;
            if inner.connections[at].0.is_closed() {
                inner.connections.remove(at);
            } else if inner.connections[at].0.is_ready() {
                return Some(inner.connections.remove(at).0);
            }
        }
        None
    }

    /// Keeps a connection for later, or closes it.
    pub fn put(&self, connection: Connection, now: Instant) {
        if connection.is_closed() {
            return;
        }
        let mut inner = self.lock();
        if !inner.closed && inner.connections.len() < IDLE_MAX {
            inner.connections.push((connection, now));
        }
    }

    /// Closes those that have been idle too long or are closed by the instance.
    pub fn expire(&self, now: Instant) {
        self.lock().connections.retain(|(connection, since)| {
            !connection.is_closed() && now.duration_since(*since) < IDLE_FOR_MAX
        });
    }

    /// Closes all, and every one that comes later.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.connections.clear();
    }

    /// Takes connections again.
    pub fn open(&self) {
        self.lock().closed = false;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

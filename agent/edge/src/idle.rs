//! Connections to one instance that wait for the next request. Bounded, newest first (the oldest is the likeliest to
//! be closed by the instance), emptied at once when the instance leaves the table.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;

use crate::proxy::body::RequestBody;

/// Most idle connections per instance: enough for a burst of as many requests at once.
const IDLE_MAX: usize = 128;

/// Longest idle. Common servers close after 2 s (gunicorn), 5 s (Node) or 60 s and more; theirs is noticed at once.
pub const IDLE_FOR_MAX: Duration = Duration::from_secs(60);

/// A connection that takes requests.
pub type Connection = SendRequest<RequestBody>;

/// How many connections may be idle in all pools together: each is a descriptor.
#[derive(Debug, Clone)]
pub struct IdleBudget(Arc<AtomicUsize>);

impl IdleBudget {
    /// So many.
    pub fn new(connections_max: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(connections_max)))
    }

    fn take(&self) -> Option<Token> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.ok().map(|_| Token(self.0.clone()))
    }
}

/// One connection's part of the budget, given back when dropped.
struct Token(Arc<AtomicUsize>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The idle connections of an instance.
pub struct IdlePool {
    inner: Mutex<Inner>,
    budget: IdleBudget,
}

#[derive(Default)]
struct Inner {
    closed: bool,
    connections: Vec<Idle>,
}

struct Idle {
    connection: Connection,
    since: Instant,
    _token: Token,
}

impl IdlePool {
    /// An empty one.
    pub fn new(budget: IdleBudget) -> Self {
        Self { inner: Mutex::default(), budget }
    }

    /// The newest one that can take a request now and has been idle for no longer than `idle_max`.
    pub fn take(&self, now: Instant, idle_max: Duration) -> Option<Connection> {
        let mut inner = self.lock();
        // One that is neither ready nor closed has just been put back and its task has not run yet: leave it.
        let mut at = inner.connections.len();
        while at > 0 {
            at -= 1;
            let idle = &inner.connections[at];
            if now.saturating_duration_since(idle.since) > idle_max {
                return None;
            }
            if idle.connection.is_closed() {
                inner.connections.remove(at);
            } else if idle.connection.is_ready() {
                return Some(inner.connections.remove(at).connection);
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
        if !inner.closed
            && inner.connections.len() < IDLE_MAX
            && let Some(token) = self.budget.take()
        {
            inner.connections.push(Idle { connection, since: now, _token: token });
        }
    }

    /// Closes those that have been idle too long or are closed by the instance.
    pub fn expire(&self, now: Instant) {
        self.lock().connections.retain(|idle| {
            !idle.connection.is_closed() && now.saturating_duration_since(idle.since) < IDLE_FOR_MAX
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
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;

    use super::*;

    /// An open connection, and the other end that keeps it so.
    async fn open() -> (Connection, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let (mut connection, driver) =
            hyper::client::conn::http1::handshake::<_, RequestBody>(TokioIo::new(near)).await.unwrap();
        tokio::spawn(driver);
        connection.ready().await.unwrap();
        (connection, far)
    }

    #[tokio::test]
    async fn a_connection_idle_for_too_long_must_not_be_taken() {
        let pool = IdlePool::new(IdleBudget::new(10));
        let (connection, _far) = open().await;
        let now = Instant::now();
        pool.put(connection, now);
        let later = now + Duration::from_secs(2);
        assert!(pool.take(later, Duration::from_secs(1)).is_none());
        assert!(pool.take(later, Duration::from_secs(5)).is_some());
        assert!(pool.take(later, Duration::from_secs(5)).is_none(), "taken");
    }

    #[tokio::test]
    async fn all_pools_together_must_keep_to_the_budget() {
        let budget = IdleBudget::new(1);
        let pools = [IdlePool::new(budget.clone()), IdlePool::new(budget)];
        let (now, ever) = (Instant::now(), Duration::from_secs(60));
        let ((first, _a), (second, _b), (third, _c)) = (open().await, open().await, open().await);
        pools[0].put(first, now);
        pools[1].put(second, now);
        assert!(pools[1].take(now, ever).is_none(), "above the budget");
        assert!(pools[0].take(now, ever).is_some());
        pools[1].put(third, now);
        assert!(pools[1].take(now, ever).is_some(), "the first one's part was given back");
    }

    #[tokio::test]
    async fn a_closed_pool_must_keep_nothing_until_it_is_opened() {
        let pool = IdlePool::new(IdleBudget::new(10));
        let (now, ever) = (Instant::now(), Duration::from_secs(60));
        let ((first, _a), (second, _b), (third, _c)) = (open().await, open().await, open().await);
        pool.put(first, now);
        pool.close();
        pool.put(second, now);
        assert!(pool.take(now, ever).is_none());
        pool.open();
        pool.put(third, now);
        assert!(pool.take(now, ever).is_some());
    }
}

//! What each container has of the DNS server: queries under way, queries a second, TCP connections. No I/O, the time is given.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A resolver library asks two at a time (A and AAAA).
const QUERIES_PER_CLIENT_MAX: usize = 32;
/// Of one client, each second: a busy service without a cache of its own.
pub(in super::super) const QUERIES_PER_SECOND_MAX: u32 = 500;
/// Saved up while it asks less.
pub(in super::super) const QUERIES_BURST_MAX: u32 = 1_000;
/// Of one client: an eighth of all. TCP is for answers that are too long for a datagram.
const CONNECTIONS_PER_CLIENT_MAX: usize = 8;

/// All of them: one small entry for each address that ever asked, which are no more than the block has.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<IpAddr, Client>>);

#[derive(Debug)]
struct Client {
    under_way: usize,
    connections: usize,
    /// Queries it may send at once; grows with time.
    saved: f64,
    at: Instant,
    dropped: u64,
}

impl Clients {
    fn all(&self) -> MutexGuard<'_, HashMap<IpAddr, Client>> {
        // Nothing in here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more query may begin; [`Clients::end`] is due then.
    pub(super) fn begin(&self, client: IpAddr, now: Instant) -> bool {
        let mut all = self.all();
        let client = all.entry(client).or_insert_with(|| Client::new(now));
        let seconds = now.saturating_duration_since(client.at).as_secs_f64();
        client.saved =
            (client.saved + seconds * f64::from(QUERIES_PER_SECOND_MAX)).min(QUERIES_BURST_MAX.into());
        client.at = now;
        let may = client.under_way < QUERIES_PER_CLIENT_MAX && client.saved >= 1.0;
        if may {
            client.under_way += 1;
            client.saved -= 1.0;
        } else {
            client.dropped += 1;
        }
        may
    }

    /// A query that was begun is over.
    pub(super) fn end(&self, client: IpAddr) {
        if let Some(client) = self.all().get_mut(&client) {
            client.under_way = client.under_way.saturating_sub(1);
        }
    }

    /// Whether one more connection may be; [`Clients::disconnect`] is due then.
    pub(super) fn connect(&self, client: IpAddr) -> bool {
        let mut all = self.all();
        let client = all.entry(client).or_insert_with(|| Client::new(Instant::now()));
        let may = client.connections < CONNECTIONS_PER_CLIENT_MAX;
        client.connections += usize::from(may);
        client.dropped += u64::from(!may);
        may
    }

    /// A connection is over.
    pub(super) fn disconnect(&self, client: IpAddr) {
        if let Some(client) = self.all().get_mut(&client) {
            client.connections = client.connections.saturating_sub(1);
        }
    }

    /// Queries and connections of it that were refused.
    pub(super) fn dropped(&self, client: IpAddr) -> u64 {
        self.all().get(&client).map_or(0, |client| client.dropped)
    }
}

impl Client {
    fn new(now: Instant) -> Self {
        Self { under_way: 0, connections: 0, saved: QUERIES_BURST_MAX.into(), at: now, dropped: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOISY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 19, 0, 2));
    const QUIET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 19, 0, 3));

    #[test]
    fn one_that_asks_too_fast_must_be_dropped_and_counted_and_the_others_not() {
        let (clients, start) = (Clients::default(), Instant::now());
        let ask = |client, now| {
            clients.begin(client, now) && {
                clients.end(client);
                true
            }
        };
        let answered = (0..5_000).filter(|_| ask(NOISY, start)).count();
        assert_eq!(answered, QUERIES_BURST_MAX as usize);
        assert_eq!(clients.dropped(NOISY), 4_000);
        assert!(ask(QUIET, start) && clients.dropped(QUIET) == 0);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..5_000).filter(|_| ask(NOISY, later)).count(), QUERIES_PER_SECOND_MAX as usize);
    }

    #[test]
    fn queries_under_way_and_connections_must_have_a_bound_and_be_given_back() {
        let (clients, now) = (Clients::default(), Instant::now());
        assert_eq!((0..100).filter(|_| clients.begin(NOISY, now)).count(), QUERIES_PER_CLIENT_MAX);
        clients.end(NOISY);
        assert!(clients.begin(NOISY, now));
        assert_eq!((0..100).filter(|_| clients.connect(NOISY)).count(), CONNECTIONS_PER_CLIENT_MAX);
        clients.disconnect(NOISY);
        assert!(clients.connect(NOISY) && clients.connect(QUIET));
    }
}

//! The DNS server that containers ask: on the gateway's address, UDP and TCP, forwarding to the host's resolvers, which
//! containers could not reach themselves. It keeps no records and no cache; it refuses what is no plain query.
//!
//! Bounds: a query is under way for at most [`upstream::ANSWER_MS_MAX`] per resolver; all together at most [`QUERIES_MAX`] over UDP
//! or TCP, over TCP on [`CONNECTIONS_MAX`] connections; of one container far less of each ([`clients`]), so that one cannot take
//! them all. Beyond a bound a query is dropped and the client's resolver asks again.

mod clients;
pub mod message;
mod upstream;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::NetworkError;
use clients::Clients;
pub(super) use clients::{QUERIES_BURST_MAX, QUERIES_PER_SECOND_MAX};
use message::{DATAGRAM_BYTES_MAX, Look};
use upstream::Upstream;

/// One socket each; a quarter of the usual soft limit of 1,024 descriptors.
const QUERIES_MAX: usize = 256;
const CONNECTIONS_MAX: usize = 64;
/// Ends a TCP connection on which nothing comes.
const IDLE: Duration = Duration::from_secs(10);

/// The running server; stops when dropped.
#[derive(Debug)]
pub(super) struct Server {
    tasks: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: Upstream,
    queries: Semaphore,
    connections: Arc<Semaphore>,
    clients: Clients,
}

impl Server {
    /// Binds to port 53 of the address and serves until stopped.
    pub(super) fn start(address: Ipv4Addr, resolvers: Vec<IpAddr>) -> Result<Self, NetworkError> {
        Self::start_at(SocketAddr::from((address, 53)), Upstream::new(resolvers, 53))
            .map_err(|source| NetworkError::Dns { address, source })
    }

    fn start_at(address: SocketAddr, upstream: Upstream) -> io::Result<Self> {
        let udp = std::net::UdpSocket::bind(address)?;
        udp.set_nonblocking(true)?;
        let udp = Arc::new(UdpSocket::from_std(udp)?);
        let tcp = std::net::TcpListener::bind(udp.local_addr()?)?;
        tcp.set_nonblocking(true)?;
        let tcp = TcpListener::from_std(tcp)?;
        let shared = Arc::new(Shared {
            upstream,
            queries: Semaphore::new(QUERIES_MAX),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            clients: Clients::default(),
        });
        let tasks =
            vec![tokio::spawn(serve_udp(udp, shared.clone())), tokio::spawn(serve_tcp(tcp, shared.clone()))];
        Ok(Self { tasks, shared })
    }

    /// Queries and connections of one client that were beyond its bounds.
    pub(super) fn dropped(&self, client: IpAddr) -> u64 {
        self.shared.clients.dropped(client)
    }

    pub(super) fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        // An error belongs to an earlier answer (a client's port unreachable), not to the socket.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(place) = Place::take(&shared, client.ip()) else { continue };
        let query = buffer[..length].to_vec();
        let socket = socket.clone();
        tokio::spawn(async move {
            if let Some(answer) = answer(&place.shared, &query, false).await {
                // A client that has gone asks no more.
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok(permit) = shared.connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) if shared.clients.connect(client.ip()) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    // How it ends concerns only the client.
                    let _ = serve_connection(stream, client.ip(), &shared).await;
                    shared.clients.disconnect(client.ip());
                    drop(permit);
                });
            }
            // It has all it may have: closed.
            Ok(_) => {}
            // Out of descriptors: accepting at once again would spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// RFC 7766: messages with their length before them, one after the other.
async fn serve_connection(mut stream: TcpStream, client: IpAddr, shared: &Arc<Shared>) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut query)).await??;
        let Some(place) = Place::take(shared, client) else { return Ok(()) };
        let Some(answer) = answer(&place.shared, &query, true).await else { return Ok(()) };
        let mut message = u16::try_from(answer.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
        message.extend(answer);
        tokio::time::timeout(IDLE, stream.write_all(&message)).await??;
    }
}

/// One of a client's places among the queries under way; given back when dropped.
struct Place {
    shared: Arc<Shared>,
    client: IpAddr,
}

impl Place {
    fn take(shared: &Arc<Shared>, client: IpAddr) -> Option<Self> {
        if !shared.clients.begin(client, Instant::now()) {
            return None;
        }
        match shared.queries.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(_) => {
                shared.clients.end(client);
                return None;
            }
        }
        Some(Self { shared: shared.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.queries.add_permits(1);
        self.shared.clients.end(self.client);
    }
}

/// The answer to one message, or nothing for what is no query at all.
async fn answer(shared: &Shared, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let question = match message::look(query) {
        Look::Nothing => return None,
        Look::Refused(answer) => return Some(answer),
        Look::Asked(question) => question,
    };
    match shared.upstream.ask(&question, query, tcp).await {
        Some(answer) => message::fit(answer, &question, tcp),
        None => message::failed(&question),
    }
}

#[cfg(test)]
mod tests;

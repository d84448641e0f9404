//! What the tests stand on: an edge (in this process, or the real program), the agent's end of its socket, and
//! clients that send exactly what they are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_edge::control::{self, Tables};
use berth_edge::table_file::TableFile;
use berth_edge::{Edge, Limits, access_log, listen, routes, stats};
use berth_wire::edge::{Backend, EdgeStats, FromEdge, Table, ToEdge, Upstream};
use berth_wire::id::{AppId, InstanceId};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Longest that anything here may take; a test that hangs fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("took too long")
}

/// An edge in this process.
pub struct Rig {
    pub address: SocketAddr,
    pub edge: Arc<Edge>,
    pub agent: Agent,
    pub dir: tempfile::TempDir,
    _stop: DropGuard,
}

impl Rig {
    pub async fn start(limits: Limits) -> Self {
        let dir = memory_dir();
        let edge = Arc::new(Edge {
            routes: routes::Routes::new(1_000),
            log: access_log::AccessLog::start(dir.path(), 64 << 20).unwrap(),
            stats: stats::EdgeCounters::default(),
            limits,
            tasks: TaskTracker::new(),
        });
        let tables = Arc::new(Tables::start(edge.clone(), TableFile::new(dir.path())));
        tokio::spawn(control::serve_agents(control::bind(dir.path()).unwrap(), tables));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(listen::accept(listener, edge.clone(), stop.clone()));
        let agent = Agent::connect(dir.path()).await;
        Self { address, edge, agent, dir, _stop: stop.drop_guard() }
    }

    /// The log so far, once `lines` requests have ended.
    pub fn log(&self) -> Vec<serde_json::Value> {
        self.edge.log.close();
        let text = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A directory where an fsync costs nothing, if there is one: hundreds of tables are stored here.
fn memory_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The agent's end of the socket.
pub struct Agent {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    pub number: u64,
    pub retired: (u64, BTreeMap<InstanceId, u32>),
}

impl Agent {
    /// Connects as soon as somebody listens.
    pub async fn connect(dir: &Path) -> Self {
        let stream = soon(async {
            loop {
                match UnixStream::connect(dir.join("edge.sock")).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await;
        let (read, write) = stream.into_split();
        Self { read: BufReader::new(read), write, number: 0, retired: Default::default() }
    }

    pub async fn send(&mut self, message: &ToEdge) {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        self.write.write_all(&line).await.unwrap();
    }

    pub async fn next(&mut self) -> FromEdge {
        let mut line = String::new();
        soon(self.read.read_line(&mut line)).await.unwrap();
        let message = serde_json::from_str(&line).unwrap();
        if let FromEdge::Retired { number, in_flight } = &message {
            self.retired = (*number, in_flight.clone());
        }
        message
    }

    /// Sends the next table and waits until it is acknowledged and what is in flight is known.
    pub async fn route(&mut self, domains: BTreeMap<&str, Backend>) -> u64 {
        self.number += 1;
        let number = self.number;
        let domains =
            domains.into_iter().map(|(domain, backend)| (domain.parse().unwrap(), backend)).collect();
        self.send(&ToEdge::Table(Table { number, domains })).await;
        self.settle(number).await;
        number
    }

    /// Waits for the ack of this table and the count after it.
    pub async fn settle(&mut self, number: u64) {
        while self.next().await != (FromEdge::Ack { number }) {}
        while !matches!(self.next().await, FromEdge::Retired { number: counted, .. } if counted >= number) {}
    }

    /// Waits until an instance that left has nothing in flight.
    pub async fn quiet(&mut self, instance: InstanceId) {
        while self.retired.1.contains_key(&instance) {
            self.next().await;
        }
    }

    pub async fn stats(&mut self) -> EdgeStats {
        self.send(&ToEdge::Stats).await;
        loop {
            if let FromEdge::Stats(stats) = self.next().await {
                return stats;
            }
        }
    }
}

pub fn backend(upstreams: Vec<Upstream>) -> Backend {
    Backend { app: AppId(Uuid::from_u128(7)), app_name: "shop".parse().unwrap(), upstreams, absent: None }
}

/// Routes `shop.localhost` to these.
pub fn shop(upstreams: Vec<Upstream>) -> BTreeMap<&'static str, Backend> {
    BTreeMap::from([("shop.localhost", backend(upstreams))])
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// Sends these bytes and reads until the connection is closed.
pub async fn raw(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    // A reset after the answer is as good as an end here.
    let _ = soon(stream.read_to_end(&mut all)).await;
    all
}

/// Sends these bytes, which must make the edge close after one answer, and takes that apart.
pub async fn exchange(to: SocketAddr, bytes: &[u8]) -> Answer {
    split(&raw(to, bytes).await)
}

pub fn split(all: &[u8]) -> Answer {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no whole head in {:?}", String::from_utf8_lossy(all));
    });
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: all[end + 4..].to_vec() }
}

/// One GET on a connection of its own.
pub async fn get(to: SocketAddr, host: &str, path: &str) -> Answer {
    exchange(to, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await
}

/// Reads until `until` has come; gives everything read.
pub async fn read_until(stream: &mut TcpStream, until: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    soon(async {
        while !String::from_utf8_lossy(&all).contains(until) {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&buffer[..read]);
        }
    })
    .await;
    String::from_utf8_lossy(&all).into_owned()
}

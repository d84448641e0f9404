//! The edge: takes HTTP requests and gives them to instances. It decides nothing about which instances there are: it
//! serves the last route table it was given, also without anybody to ask.
//!
//! ```text
//!  listen ──> proxy (host, limits, headers) ──> routes.choose ──> idle pool or connect ──> answer, streamed
//!                                                   ^                                        └─> access_log, stats
//!  control (agent's socket) ──> routes.swap ──> table_file ──> Ack, Retired
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`listen`] | the listening socket, the connection cap, the graceful end |
//! | [`client_io`] | a client's socket, with a bound on how long it may refuse bytes |
//! | [`host`] | from a Host header to a key of the table |
//! | [`routes`], [`table_file`] | the table in force and on disk; which instances left it |
//! | [`instance`], [`idle`] | one instance: what is in flight, its idle connections |
//! | [`proxy`] | one request, from head to last byte |
//! | [`control`] | the agent's socket |
//! | [`access_log`], [`stats`] | what was done |
//! | [`confine`] | giving up what the edge does not need |

pub mod access_log;
pub mod client_io;
pub mod confine;
pub mod control;
pub mod host;
pub mod idle;
pub mod instance;
pub mod listen;
pub mod proxy;
pub mod routes;
pub mod stats;
pub mod table_file;

use std::time::Duration;

use tokio_util::task::TaskTracker;

/// Everything that requests share.
pub struct Edge {
    /// Where they go.
    pub routes: routes::Routes,
    /// What was done.
    pub log: access_log::AccessLog,
    /// What was counted.
    pub stats: stats::EdgeCounters,
    /// What is allowed.
    pub limits: Limits,
    /// Connections and upgraded tunnels that a graceful end waits for.
    pub tasks: TaskTracker,
}

/// What one request, and all of them, may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once. Each may need a second descriptor to an instance.
    pub connections_max: u64,
    /// Bytes of a request's head, and of a response's.
    pub head_bytes_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: u64,
    /// Longest between requests and until a head is complete.
    pub head_read_max: Duration,
    /// Longest for a TCP connection to an instance; they are on this host or near it.
    pub connect_max: Duration,
    /// Longest from the request's last byte to the response's first (Heroku's 30 s).
    pub first_byte_max: Duration,
    /// Longest silence after that, in either direction (Heroku's rolling 55 s).
    pub silence_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            head_bytes_max: 64 << 10,
            body_bytes_max: 1 << 30,
            head_read_max: Duration::from_secs(60),
            connect_max: Duration::from_secs(5),
            first_byte_max: Duration::from_secs(30),
            silence_max: Duration::from_secs(55),
        }
    }
}

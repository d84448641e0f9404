//! Between the agent and the edge: JSON lines over a Unix stream socket that the edge listens on
//! (`edge.sock`, mode 0600, owner the edge's user). The agent connects, sends a whole [`Table`] whenever it changes,
//! and reads [`FromEdge`]. The edge keeps serving its last table, also one it finds on disk at start, when nobody
//! is connected: the request path needs no one else.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::id::{AppId, InstanceId};
use crate::name::{AppName, Domain};

/// Agent to edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToEdge {
    /// Swap to this table as a whole.
    Table(Table),
    /// Send [`FromEdge::Stats`].
    Stats,
}

/// Where every request goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Grows with each table of this agent installation, across its restarts. An older one is ignored.
    pub number: u64,
    /// By domain, lower case, without port.
    pub domains: BTreeMap<Domain, Backend>,
}

/// Who answers for a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The app, for the access log and metrics.
    pub app: AppId,
    /// Its name.
    pub app_name: AppName,
    /// Healthy instances. Empty: the edge answers 503 with `absent`.
    pub upstreams: Vec<Upstream>,
    /// Why there are none, if the agent knows: `H10` crashed, `H20` did not come up. Otherwise the edge says `H14`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<Code>,
}

/// One instance and its address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upstream {
    /// Which instance.
    pub instance: InstanceId,
    /// Its process label, `web.1`, for the access log.
    pub process: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Edge to agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromEdge {
    /// The table with this number is in force and stored: no new request will use an older one. Sent after each swap,
    /// again when the same table is sent again, and to whoever connects (so that an agent that lost its
    /// counter can continue above it).
    Ack {
        /// The table's number.
        number: u64,
    },
    /// Requests (and upgraded connections) in flight to instances that are no longer in the table. Sent after each
    /// ack and whenever one of these numbers falls to zero. An instance that is absent has none, and the edge has closed
    /// its idle connections to it.
    Retired {
        /// The table these numbers are relative to.
        number: u64,
        /// In flight by instance, only those above zero.
        in_flight: BTreeMap<InstanceId, u32>,
    },
    /// Counters since the edge started.
    Stats(EdgeStats),
}

/// What the edge counted, by instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeStats {
    /// By instance. An instance disappears an hour after it left the table.
    pub instances: BTreeMap<InstanceId, RequestStats>,
    /// Answers by the edge itself, by code: unknown domain, no instances, …
    pub errors: BTreeMap<String, u64>,
    /// Connections open now.
    pub connections: u64,
}

/// Longest line on the socket: 100,000 domains of about 600 bytes.
pub const LINE_BYTES_MAX: u64 = 64 << 20;

/// Upper bounds, in seconds, of the latency histogram's buckets (Prometheus client defaults).
pub const LATENCY_BUCKETS_SECONDS: [f64; 11] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Requests of one instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestStats {
    /// By status class: `1xx` … `5xx`.
    pub by_class: BTreeMap<String, u64>,
    /// Requests per bucket of [`LATENCY_BUCKETS_SECONDS`] (not cumulative), and last those above.
    pub latency_buckets: [u64; 12],
    /// Sum of all latencies in seconds, from the request's head read to the response's end.
    pub latency_sum_seconds: f64,
    /// In flight now.
    pub in_flight: u32,
}

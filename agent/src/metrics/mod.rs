//! `/metrics`: the newest samples in Prometheus' text format, on an address of its own.
//!
//! Bounded cardinality: about 40 series per instance (14 of its container, 5 status classes, 14 of the latency
//! histogram, a few of its life), and only of instances that the host has now; labels are the app's name, `web.1`, the instance's id and
//! the release, all of the spec, none of a request. 1,000 instances are 40,000 series, about 6 MB of text.
//!
//! | module | |
//! |---|---|
//! | [`families`] | building metric families |
//! | [`instances`], [`host`], [`process`] | which there are |
//! | [`server`] | HTTP |

mod families;
mod host;
mod instances;
mod process;
pub mod server;

use std::sync::Arc;

use berth_wire::edge::EdgeStats;
use berth_wire::report::{HostFacts, InstanceSample};
use prometheus::TextEncoder;
use tokio::sync::watch;

use crate::link::reports::Sampled;
use crate::link::sessions::Scrape;
use crate::reconcile::Snapshot;
use crate::routes::RoutesStatus;
use crate::sampling::Samples;
use families::Families;

/// Where the numbers come from.
pub struct Metrics {
    /// Of the kernel.
    pub samples: Arc<Samples>,
    /// Of the reconciler.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Of the edge.
    pub edge: watch::Receiver<EdgeStats>,
    /// About the edge.
    pub routes: watch::Receiver<RoutesStatus>,
}

impl Scrape for Metrics {
    async fn scrape(&self) -> String {
        self.samples.take_if_stale().await;
        let snapshot = self.snapshots.borrow().clone();
        let edge = self.edge.borrow().clone();
        let connected = self.routes.borrow().connected;
        render(&snapshot, &self.samples.newest(), &self.samples.host_facts(), &edge, connected)
    }
}

/// All of it as text.
fn render(
    snapshot: &Snapshot,
    samples: &[InstanceSample],
    facts: &HostFacts,
    edge: &EdgeStats,
    connected: bool,
) -> String {
    let mut families = Families::default();
    instances::containers(&mut families, snapshot, samples);
    instances::lives(&mut families, snapshot);
    instances::requests(&mut families, snapshot, edge);
    host::facts(&mut families, facts);
    host::berth(&mut families, snapshot, edge, connected);
    process::own(&mut families);
    TextEncoder::new().encode_to_string(&families.0).unwrap_or_else(|error| {
        // Only a malformed family, a mistake in this folder, gets here.
        tracing::error!(%error, "could not encode the metrics");
        String::new()
    })
}

#[cfg(test)]
mod tests;

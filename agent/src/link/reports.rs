//! Tells the control plane what is: after every change, and at least every [`REPORT_SECONDS_MAX`].

use std::sync::Arc;
use std::time::Duration;

use berth_wire::report::{EdgeReport, HostFacts, InstanceSample, REPORT_SECONDS_MAX, Report, ReportReceipt};
use jiff::Timestamp;
use reqwest::Method;
use tokio::sync::watch;

use super::client::{BackOff, Link, LinkError};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::reconcile::Snapshot;
use crate::routes::RoutesStatus;

/// Changes come in bursts (a launch is three of them): what comes within this is one report.
const GATHER: Duration = Duration::from_millis(50);

/// A receipt is one number.
const RECEIPT_BYTES_MAX: usize = 64 << 10;

/// What instances cost and what the host has, as far as a report says it.
pub trait Sampled: Send + Sync + 'static {
    /// The newest sample of each running instance.
    fn newest(&self) -> Vec<InstanceSample>;
    /// The host.
    fn host_facts(&self) -> HostFacts;
}

/// Where a report's parts come from.
pub struct Sources<S> {
    /// The newest persisted spec.
    pub ledger: Arc<Ledger>,
    /// What runs.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What the edge does.
    pub routes: watch::Receiver<RoutesStatus>,
    /// What happened.
    pub journal: Arc<Journal>,
    /// What it costs.
    pub samples: Arc<S>,
}

impl<S: Sampled> Sources<S> {
    /// The report of this moment.
    pub fn report(&mut self, now: Timestamp) -> Report {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let edge = {
            let routes = self.routes.borrow_and_update();
            EdgeReport {
                connected: routes.connected,
                table: routes.acked,
                serving: routes.serving.iter().copied().collect(),
            }
        };
        Report {
            generation: self.ledger.current().map(|spec| spec.generation),
            instances: snapshot.instances.iter().map(|seen| seen.report.clone()).collect(),
            edge,
            host: self.samples.host_facts(),
            samples: self.samples.newest(),
            events: self.journal.pending(now),
        }
    }
}

/// Reports for ever.
pub async fn send<S: Sampled>(link: Link, mut sources: Sources<S>) -> std::convert::Infallible {
    let mut back_off = BackOff::default();
    let mut events = sources.journal.subscribe();
    let mut specs = sources.ledger.subscribe();
    loop {
        events.mark_unchanged();
        specs.mark_unchanged();
        let report = sources.report(Timestamp::now());
        match post(&link, &report).await {
            Ok(receipt) => {
                back_off.reset();
                sources.journal.received(receipt.events_received);
            }
            Err(error) => {
                back_off.pause(&error).await;
                continue;
            }
        }
        // A closed channel means that the agent is ending; the timer then paces what is left.
        tokio::select! {
            Ok(()) = sources.snapshots.changed() => {}
            Ok(()) = sources.routes.changed() => {}
            Ok(()) = events.changed() => {}
            Ok(()) = specs.changed() => {}
            () = tokio::time::sleep(Duration::from_secs(REPORT_SECONDS_MAX)) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn post(link: &Link, report: &Report) -> Result<ReportReceipt, LinkError> {
    let answer = link.send("POST report", link.request(Method::POST, "report").json(report)).await?;
    link.json("POST report", answer, RECEIPT_BYTES_MAX).await
}

//! Names whoever runs into a limit that the kernel enforces without a word: each becomes an event of that instance, so that a
//! noisy neighbour is known by name. A quota that is reached hurts nobody else; this is for the owner of the app to know.
//!
//! Looks every [`LOOK_EVERY`]: a dozen small reads per container, 15 ms for 1,000 of them. What counts as reached and how often it
//! is said is in [`judge`] (pure); [`look`] reads.

mod judge;
mod look;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_wire::id::InstanceId;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::container::Host;
use crate::journal::{Happening, Journal};
use crate::reconcile::{Seen, Snapshot};
use judge::{Judge, Said};

/// Short enough to name a culprit while it is one.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks for ever.
pub async fn tell(
    host: Arc<Host>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    journal: Arc<Journal>,
) -> std::convert::Infallible {
    let began = Instant::now();
    let mut judge = Judge::default();
    let mut timer = tokio::time::interval(LOOK_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let snapshot = snapshots.borrow().clone();
        let discarded = host.lines_discarded().await.unwrap_or_default().into_iter().collect();
        let alive: Vec<&Seen> = snapshot.instances.iter().filter(|seen| seen.alive).collect();
        let ids: BTreeSet<InstanceId> = alive.iter().map(|seen| seen.report.id).collect();
        judge.forget_all_but(&ids);
        for seen in alive {
            let (Some(spec), Some(look)) = (&seen.spec, look::look(&host, seen.report.id, &discarded)) else {
                continue;
            };
            let quota = seen.report.quota.unwrap_or(spec.quota);
            let name = format!("{}.{}", spec.process, spec.index);
            for said in judge.judge(seen.report.id, look, &quota, began.elapsed()) {
                journal.append(Timestamp::now(), happening(seen, &name, said));
            }
        }
    }
}

fn happening(seen: &Seen, name: &str, said: Said) -> Happening {
    let message = format!("{name} {}", said.message);
    tracing::info!(instance = %seen.report.id, process = name, code = %said.code, "{message}");
    Happening {
        app: seen.spec.as_ref().map(|spec| spec.app),
        instance: Some(seen.report.id),
        process: name.to_owned(),
        code: Some(said.code),
        message,
        facts: said.facts.into_iter().map(|(key, value)| (key.to_owned(), value.to_string())).collect(),
    }
}

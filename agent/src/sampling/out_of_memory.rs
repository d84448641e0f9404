//! Where the kernel's OOM killer ends one process instead of the container (cgroup v1 has no memory.oom.group), ends the rest:
//! running out of memory is one event of the whole container.
//!
//! A container whose first process was the one is over already; this is for its other processes, and for those that `exec` put
//! beside them. The kernel's count goes with the cgroup, and each start makes a new one: what was killed once is not killed again
//! after its restart.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::container::Host;
use crate::reconcile::Snapshot;

/// One read of one file per running container: 1,000 of them are about 5 ms of each second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks for ever; not at all where the kernel does it by itself.
pub async fn end_the_rest(
    host: Arc<Host>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> std::convert::Infallible {
    if host.cgroups.is_unified() {
        return std::future::pending().await;
    }
    let mut timer = tokio::time::interval(LOOK_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let snapshot = snapshots.borrow().clone();
        for seen in snapshot.instances.iter().filter(|seen| seen.alive) {
            let id = seen.report.id;
            let group = host.cgroups.get(id).ok().flatten();
            if let Some(Err(error)) = group.map(|group| group.end_if_out_of_memory()) {
                tracing::debug!(%error, instance = %id, "could not look for an OOM kill");
            }
        }
    }
}

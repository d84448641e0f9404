//! What instances cost and what the host has: read from the kernel every [`SAMPLE_EVERY`], and anew when somebody scrapes.
//! Only reads; what is too much is for quotas to say, and who ran into one is said by [`at_limits`].

pub mod at_limits;
mod host;
pub mod out_of_memory;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_wire::edge::EdgeStats;
use berth_wire::id::InstanceId;
use berth_wire::report::{HostFacts, InstanceSample};
use tokio::sync::watch;

use crate::cgroup::Cgroup;
use crate::container::Host;
use crate::link::reports::Sampled;
use crate::reconcile::Snapshot;

/// How often samples are taken: what the control plane's finest roll-up holds.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// A scrape takes new samples if the newest are older than this; two scrapers at once cost one reading.
const FRESH: Duration = Duration::from_secs(1);

/// The newest sample of each running instance, and the host's facts.
pub struct Samples {
    host: Arc<Host>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    edge: watch::Receiver<EdgeStats>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    at: Option<Instant>,
    newest: BTreeMap<InstanceId, InstanceSample>,
    // Kept open: a sample then costs reads, no opens.
    groups: BTreeMap<InstanceId, Cgroup>,
    warnings: Vec<String>,
    unenforced: BTreeMap<String, String>,
    facts: HostFacts,
}

impl Samples {
    /// Samples of what `snapshots` shows running on `host`.
    pub fn new(
        host: Arc<Host>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        edge: watch::Receiver<EdgeStats>,
        warnings: Vec<String>,
    ) -> Self {
        let unenforced = unenforced();
        let facts = host::facts(Some(&host.disk), &warnings, &unenforced);
        let taken = Mutex::new(Taken { warnings, unenforced, facts, ..Taken::default() });
        Self { host, snapshots, edge, taken }
    }

    /// Takes samples for ever.
    pub async fn keep_taking(self: Arc<Self>) -> std::convert::Infallible {
        let mut timer = tokio::time::interval(SAMPLE_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            self.take().await;
        }
    }

    /// Takes samples now unless that was just done.
    pub async fn take_if_stale(&self) {
        let at = self.taken.lock().unwrap_or_else(PoisonError::into_inner).at;
        if at.is_none_or(|at| at.elapsed() > FRESH) {
            self.take().await;
        }
    }

    async fn take(&self) {
        let discarded: BTreeMap<InstanceId, u64> = match self.host.lines_discarded().await {
            Ok(discarded) => discarded.into_iter().collect(),
            Err(error) => {
                tracing::debug!(%error, "could not read how many log lines were discarded");
                BTreeMap::new()
            }
        };
        let snapshot = self.snapshots.borrow().clone();
        let alive = snapshot.instances.iter().filter(|seen| seen.alive);
        let running: BTreeMap<InstanceId, u32> =
            alive.map(|seen| (seen.report.id, seen.out_of_memory)).collect();
        let edge = self.edge.borrow().clone();
        // Some hundred microseconds of reads from cgroupfs per hundred instances; they do not block on disks.
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest = BTreeMap::new();
        for (&id, &out_of_memory) in &running {
            if let Some(mut sample) = self.sample(&mut taken.groups, id) {
                // The group's own count begins again with each launch.
                sample.memory_oom_kills += u64::from(out_of_memory);
                sample.log_lines_discarded = discarded.get(&id).copied().unwrap_or_default();
                sample.requests = edge.instances.get(&id).map_or(0, |r| r.by_class.values().sum());
                newest.insert(id, sample);
            }
        }
        taken.groups.retain(|id, _| running.contains_key(id));
        taken.newest = newest;
        taken.facts = host::facts(Some(&self.host.disk), &taken.warnings, &taken.unenforced);
        taken.at = Some(Instant::now());
    }

    fn sample(&self, groups: &mut BTreeMap<InstanceId, Cgroup>, id: InstanceId) -> Option<InstanceSample> {
        let kept = groups.get(&id).and_then(|group| group.sample().ok());
        let group = match kept {
            Some(sample) => sample,
            // First seen, or made anew by a restart.
            None => {
                let group = self.host.cgroups.get(id).ok().flatten()?;
                let sample = group.sample().ok()?;
                groups.insert(id, group);
                sample
            }
        };
        let (received, sent) = self.host.network.sample(id).unwrap_or_default();
        Some(InstanceSample {
            instance: Some(id),
            cpu_usage_us: group.cpu_usage_us,
            cpu_throttled_us: group.cpu_throttled_us,
            cpu_throttled_periods: group.cpu_throttled_periods,
            cpu_periods: group.cpu_periods,
            memory_usage_bytes: group.memory_usage_bytes,
            memory_working_set_bytes: group.memory_working_set_bytes,
            memory_swap_bytes: group.memory_swap_bytes,
            io_read_bytes: group.io_read_bytes,
            io_write_bytes: group.io_write_bytes,
            memory_oom_kills: group.memory_oom_kills,
            pids: group.pids,
            disk_usage_bytes: self.host.disk.usage(id).map_or(0, |(used, _)| used),
            network_receive_bytes: received,
            network_transmit_bytes: sent,
            log_lines_discarded: 0,
            requests: 0,
        })
    }
}

/// What of a quota this host does not enforce.
fn unenforced() -> BTreeMap<String, String> {
    let mut found = crate::cgroup::unenforced().unwrap_or_default();
    if !crate::network::can_limit_egress() {
        let reason = "the kernel lacks CONFIG_NET_SCH_TBF";
        found.insert("egress_bytes_per_second".to_owned(), reason.to_owned());
    }
    found
}

impl Sampled for Samples {
    fn newest(&self) -> Vec<InstanceSample> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).newest.values().cloned().collect()
    }

    fn host_facts(&self) -> HostFacts {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).facts.clone()
    }
}

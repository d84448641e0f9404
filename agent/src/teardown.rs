//! Gives back everything an installation took from the machine, with or without a launcher: kills what its cgroups hold, then
//! removes parts from the outside in. Idempotent; tries every part, forgets (the claim on the installation id) last.

use std::time::Duration;

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::disk::Disk;
use crate::disk::shares::Shares;
use crate::installation::Installation;
use crate::launch::Launcher;
use crate::network::Network;
use crate::serve::network_config;

/// How long killed processes may take to be gone: freeing 512 MiB and a network namespace takes less than a second.
const EMPTY_MS_MAX: u32 = 5_000;

/// A mount that a dying launcher still holds goes with it; tried this often, 0.2 s apart.
const CLOSE_TRIES: u32 = 50;

/// What could not be given back.
#[derive(Debug, thiserror::Error)]
#[error("not everything could be given back: {}", .0.join("; "))]
pub struct TeardownError(Vec<String>);

/// Gives back.
///
/// # Errors
/// The parts that could not be given back; the next attempt finds them again.
pub async fn teardown(config: &Config) -> Result<(), TeardownError> {
    let mut failed = Failures(Vec::new());
    let Some(installation) = failed.note(Installation::new(&config.installation)) else {
        return failed.outcome();
    };
    let ids = failed
        .note(Cgroups::open_in(&installation, config.cgroup_base.as_deref()))
        .map(|cgroups| (kill_all(&cgroups, &mut failed), cgroups));
    if let (Some((ids, _)), Ok(launcher)) = (&ids, Launcher::connect(&config.launcher_dir).await) {
        for &id in ids {
            failed.note(launcher.forget(id).await);
        }
    }
    if let Some(network_config) = failed.note(network_config(config))
        && let Some(network) = failed.note(Network::open(&installation, network_config).await)
    {
        for id in network.list() {
            failed.note(network.release(id).await);
        }
        failed.note(network.close_down().await);
    }
    failed.note(crate::idle::remove_swap(&installation));
    close_disk(config, &installation, &mut failed).await;
    if let Some((_, cgroups)) = ids {
        failed.note(cgroups.close_down());
    }
    if failed.0.is_empty() {
        failed.note(installation.release());
    }
    failed.outcome()
}

fn kill_all(cgroups: &Cgroups, failed: &mut Failures) -> Vec<berth_wire::id::InstanceId> {
    let ids = failed.note(cgroups.list()).unwrap_or_default();
    let groups: Vec<_> = ids.iter().filter_map(|&id| failed.note(cgroups.get(id)).flatten()).collect();
    // All first, so that they die side by side.
    for group in &groups {
        failed.note(group.kill());
    }
    for group in &groups {
        failed.note(group.wait_empty(EMPTY_MS_MAX));
        failed.note(group.remove());
    }
    ids
}

/// The pool's file stays: it is data, not the machine's.
async fn close_disk(config: &Config, installation: &Installation, failed: &mut Failures) {
    let Some(disk) =
        failed.note(Disk::open(installation, &config.data_dir, Shares::divided(config.pool_bytes)).await)
    else {
        return;
    };
    for id in failed.note(disk.list()).unwrap_or_default() {
        failed.note(disk.remove(id).await);
    }
    let mut last = disk.close().await;
    for _ in 0..CLOSE_TRIES {
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        last = disk.close().await;
    }
    failed.note(last);
}

struct Failures(Vec<String>);

impl Failures {
    fn note<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.0.push(error.to_string())).ok()
    }

    fn outcome(self) -> Result<(), TeardownError> {
        if self.0.is_empty() { Ok(()) } else { Err(TeardownError(self.0)) }
    }
}

//! A container as one thing: cgroup, network, disk and process made together and removed together. What each of them
//! is lies in its own module; what should run is decided by the callers (reconcile, build, `run`).

mod spec;

use std::time::Duration;

use berth_wire::id::InstanceId;
use berth_wire::report::Exit;

use crate::cgroup::Cgroups;
use crate::disk::Disk;
use crate::image::Images;
use crate::installation::Installation;
use crate::launch::{Launcher, UidRanges};
use crate::network::Network;

pub use spec::{Adopted, Bind, Capabilities, ContainerSpec, Output, StartError, Started};

/// Everything of the machine that containers are made of. Shared as `Arc<Host>`.
#[derive(Debug)]
pub struct Host {
    /// Whose they are.
    pub installation: Installation,
    /// Control groups.
    pub cgroups: Cgroups,
    /// Network.
    pub network: Network,
    /// Writable space.
    pub disk: Disk,
    /// Layers.
    pub images: Images,
    /// Processes.
    pub launcher: Launcher,
    /// Id ranges.
    pub uids: UidRanges,
}

/// What could not be done with a container that exists.
#[derive(Debug, thiserror::Error)]
#[error("container {id}: {action}: {reason}")]
pub struct ContainerError {
    /// Which.
    pub id: InstanceId,
    /// What was tried.
    pub action: &'static str,
    /// Why it failed.
    pub reason: String,
}

impl Host {
    /// Makes every part and starts the process. On an error nothing of it is left.
    ///
    /// # Errors
    /// A code and a sentence.
    pub async fn start(&self, _spec: ContainerSpec) -> Result<Started, StartError> {
        unimplemented!()
    }
    /// Waits until it ended; at once if it has. Survives a restart of the launcher.
    pub async fn wait(&self, _id: InstanceId) -> Exit {
        unimplemented!()
    }
    /// SIGTERM to the main process, then SIGKILL to all once the grace is over. Says how it ended.
    ///
    /// # Errors
    /// A launcher that is not reachable.
    pub async fn stop(&self, _id: InstanceId, _grace: Duration) -> Result<Exit, ContainerError> {
        unimplemented!()
    }
    /// Kills and removes every part; idempotent. Tries everything, forgets last; with `release_address`, its address may be
    /// given to another container at once.
    ///
    /// # Errors
    /// The parts that could not be removed.
    pub async fn destroy(&self, _id: InstanceId, _release_address: bool) -> Result<(), ContainerError> {
        unimplemented!()
    }
    /// Lines of output that were discarded because of the log rate.
    ///
    /// # Errors
    /// A launcher that is not reachable.
    pub async fn lines_discarded(&self) -> Result<Vec<(InstanceId, u64)>, ContainerError> {
        unimplemented!()
    }
    /// Every container that the launcher knows; to be called once, when the agent starts, before anything is started.
    ///
    /// # Errors
    /// A launcher that is not reachable.
    pub async fn adopt(&self) -> Result<Vec<Adopted>, ContainerError> {
        unimplemented!()
    }
}

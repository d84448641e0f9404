//! A container as one thing: cgroup, network, disk and process made together and removed together. What each of them
//! is lies in its own module; what should run is decided by the callers (reconcile, build, `run`).
//!
//! ```text
//! ready: range ─> cgroup, disk, namespaces ─> network       made ahead under an id of their own; renamed to the container's when used
//! start: ready parts, or the same made now ─> identity files ─> plan ─> launch                 a failure removes what was made
//! destroy: kill ─> wait ─> cgroup, network, disk ─> range ─> the launcher's memory of it       tries everything, forgets last
//! ```

mod exec;
mod identity;
mod parts;
mod quota;
mod ready;
mod remove;
mod spec;
mod start;
mod steps;

use std::time::Duration;

use berth_wire::id::InstanceId;
use berth_wire::launch::{Child, ChildState, Event};
use berth_wire::report::Exit;
use tokio::sync::broadcast::Receiver;

use crate::cgroup::Cgroups;
use crate::disk::Disk;
use crate::image::Images;
use crate::installation::Installation;
use crate::launch::{LaunchError, Launcher, UidRanges};
use crate::network::Network;

pub use exec::{ExecSpec, Executed};
pub use quota::QuotaError;
pub use ready::{READY_MAX, Ready};
pub use spec::{Adopted, Bind, Capabilities, ContainerSpec, Output, StartError, Started};
pub use steps::StepTime;

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
    /// Parts made ahead; none unless [`Host::keep_ready`] runs.
    pub ready: Ready,
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

/// Pause before asking a launcher again that was not reachable.
const ASK_AGAIN: Duration = Duration::from_millis(200);

impl ContainerError {
    fn new(id: InstanceId, action: &'static str, reason: impl std::fmt::Display) -> Self {
        Self { id, action, reason: reason.to_string() }
    }
}

impl Host {
    /// Waits until it ended; at once if it has. Survives a restart of the launcher. A container that the launcher does not know
    /// ended in an unknown way.
    pub async fn wait(&self, id: InstanceId) -> Exit {
        loop {
            // Subscribed before asking: what happens in between is not missed.
            let mut events = self.launcher.events();
            match self.launcher.status(id).await {
                Ok(None) => return Exit::Unknown,
                Ok(Some(Child { state: ChildState::Exited(exit), .. })) => {
                    return self.name_the_exit(id, exit);
                }
                Ok(Some(_)) => {
                    if let Some(exit) = next_exit(&mut events, id).await {
                        return self.name_the_exit(id, exit);
                    }
                }
                Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    /// A kill by the kernel's OOM killer looks like any other; only the cgroup knows.
    fn name_the_exit(&self, id: InstanceId, exit: Exit) -> Exit {
        const SIGKILL: u8 = 9;
        let killed = matches!(exit, Exit::Signal(SIGKILL) | Exit::Unknown);
        let oom_kills = || self.cgroups.get(id).ok().flatten().and_then(|group| group.oom_kills().ok());
        if killed && oom_kills().is_some_and(|count| count > 0) { Exit::OutOfMemory } else { exit }
    }

    /// SIGTERM to the main process, then SIGKILL to all once the grace is over. Says how it ended.
    ///
    /// # Errors
    /// A launcher that is not reachable.
    pub async fn stop(&self, id: InstanceId, grace: Duration) -> Result<Exit, ContainerError> {
        const SIGTERM: u8 = 15;
        unless_gone(self.launcher.signal(id, SIGTERM).await)
            .map_err(|error| ContainerError::new(id, "send SIGTERM", error))?;
        if let Ok(exit) = tokio::time::timeout(grace, self.wait(id)).await {
            return Ok(exit);
        }
        unless_gone(self.launcher.kill(id).await)
            .map_err(|error| ContainerError::new(id, "send SIGKILL", error))?;
        Ok(self.wait(id).await)
    }

    /// Lines of output that were discarded because of the log rate.
    ///
    /// # Errors
    /// A launcher that is not reachable.
    pub async fn lines_discarded(&self) -> Result<Vec<(InstanceId, u64)>, LaunchError> {
        let children = self.launcher.list().await?;
        Ok(children.into_iter().map(|child| (child.id, child.lines_discarded)).collect())
    }

    /// Every container that the launcher knows; to be called once, when the agent starts, before anything is started. Parts of
    /// containers that it does not know (a start that was interrupted) are removed; their addresses stay reserved until somebody
    /// releases them, because an edge may still have connections to them.
    ///
    /// # Errors
    /// A launcher that is not reachable.
    pub async fn adopt(&self) -> Result<Vec<Adopted>, LaunchError> {
        let children = self.launcher.list().await?;
        for child in &children {
            self.uids.adopt(child.id, child.uid_base);
        }
        self.remove_strays(&children).await;
        let adopt = |child: Child| Adopted {
            id: child.id,
            endpoint: self.network.get(child.id),
            pid: child.pid,
            exit: match child.state {
                ChildState::Exited(exit) => Some(self.name_the_exit(child.id, exit)),
                ChildState::Starting | ChildState::Running => None,
            },
        };
        Ok(children.into_iter().map(adopt).collect())
    }
}

/// A container that is gone already is what was wanted.
fn unless_gone(done: Result<(), LaunchError>) -> Result<(), LaunchError> {
    match done {
        Err(LaunchError::Refused(failure)) if failure.errno == libc::ESRCH => Ok(()),
        other => other,
    }
}

/// The next exit of this container; none if events were missed.
async fn next_exit(events: &mut Receiver<Event>, id: InstanceId) -> Option<Exit> {
    loop {
        match events.recv().await {
            Ok(Event::Exited { id: ended, exit }) if ended == id => return Some(exit),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

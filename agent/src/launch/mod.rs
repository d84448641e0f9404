//! The agent's side of the launcher: an asynchronous client and the pool of user id ranges. Skeleton; filled next.

use std::os::fd::OwnedFd;
use std::path::Path;

use berth_wire::id::InstanceId;
use berth_wire::launch::{Child, Event};
use tokio::sync::broadcast;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher is not there.
    #[error("launcher at {0}: not reachable; is berth-launcher running?")]
    Disconnected(String),
}

/// The namespaces a container will own.
#[derive(Debug)]
pub struct NamespacePair {
    /// Its user namespace.
    pub user: OwnedFd,
    /// Its network namespace, owned by the former.
    pub network: OwnedFd,
}

/// A connection to the launcher that reconnects by itself.
#[derive(Debug)]
pub struct Launcher {}

impl Launcher {
    /// Connects to the launcher whose directory this is.
    ///
    /// # Errors
    /// No launcher there.
    pub async fn connect(_dir: &Path) -> Result<Self, LaunchError> {
        unimplemented!()
    }
    /// Every container it knows.
    ///
    /// # Errors
    /// The launcher is not reachable.
    pub async fn list(&self) -> Result<Vec<Child>, LaunchError> {
        unimplemented!()
    }
    /// Forgets a container that ended; idempotent.
    ///
    /// # Errors
    /// The launcher is not reachable.
    pub async fn forget(&self, _id: InstanceId) -> Result<(), LaunchError> {
        unimplemented!()
    }
    /// What happens from now on. After a lag, ask with [`Launcher::list`].
    pub fn events(&self) -> broadcast::Receiver<Event> {
        unimplemented!()
    }
}

/// Ranges of user ids, each for one container at a time.
#[derive(Debug)]
pub struct UidRanges {}

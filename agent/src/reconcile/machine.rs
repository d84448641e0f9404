//! What the reconciler needs of the machine and of the edge, and no more: the seam between deciding and doing. On a host it is
//! `on_host`; in tests it is played.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use berth_wire::edge::Backend;
use berth_wire::id::InstanceId;
use berth_wire::name::Domain;
use berth_wire::quota::Quota;
use berth_wire::report::{Built, Exit, Trouble};
use berth_wire::spec::InstanceSpec;

use super::plan::{EdgeView, Why};
use super::record::Health;

/// A container that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launched {
    /// Its address, if it has a network.
    pub address: Option<Ipv4Addr>,
    /// The host's pid of its init.
    pub pid: u32,
}

/// Something of an instance that was found when the agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub id: InstanceId,
    /// Its process, unless only parts of a container were found.
    pub process: Option<Launched>,
    /// How the process ended, if it has.
    pub exit: Option<Exit>,
}

/// Why a running container was not given a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSet {
    /// It cannot have it while it runs; the one before is in force.
    Never(String),
    /// Something that may be better soon.
    Yet(String),
}

/// A container as its checks see it.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it should be.
    pub spec: Arc<InstanceSpec>,
    /// Where it is.
    pub address: Ipv4Addr,
    /// The host's pid of its init.
    pub pid: Option<u32>,
}

/// What the reconciler needs of the machine. Every call may take as long as it must; each runs in a task of its own.
pub trait Machine: Send + Sync + 'static {
    /// What is there of containers, once, before anything is started.
    fn adopt(&self) -> impl Future<Output = Result<Vec<Found>, String>> + Send;
    /// Gets the image, makes the container, launches its process.
    fn start(&self, spec: Arc<InstanceSpec>) -> impl Future<Output = Result<Launched, Trouble>> + Send;
    /// Runs a build to its end. Dropping the future ends it.
    fn build(&self, spec: Arc<InstanceSpec>) -> impl Future<Output = Result<Built, Trouble>> + Send;
    /// Gives an instance's running container this quota.
    fn set_quota(&self, id: InstanceId, quota: Quota) -> impl Future<Output = Result<(), NotSet>> + Send;
    /// Waits for the end of an instance's process.
    fn wait(&self, id: InstanceId) -> impl Future<Output = Exit> + Send;
    /// SIGTERM, the grace, SIGKILL; how it ended.
    fn stop(&self, id: InstanceId, grace: Duration) -> impl Future<Output = Result<Exit, String>> + Send;
    /// Finds out why an instance must be killed.
    fn verdict(&self, target: Target, why: Why) -> impl Future<Output = Trouble> + Send;
    /// Removes every part but the address (`false`) or all (`true`); idempotent.
    fn remove(
        &self,
        id: InstanceId,
        release_address: bool,
    ) -> impl Future<Output = Result<(), String>> + Send;
    /// Checks health for ever, telling each change.
    fn check(
        &self,
        target: Target,
        from: Health,
        tell: impl AsyncTell,
    ) -> impl Future<Output = std::convert::Infallible> + Send;
    /// The last lines of an instance's log.
    fn log_tail(&self, spec: Arc<InstanceSpec>) -> impl Future<Output = Vec<String>> + Send;
}

/// Where a check tells what it found.
pub trait AsyncTell: Send + Sync {
    /// Tells one change; the sentence says why it is not well.
    fn tell(&self, health: Health, trouble: Option<Trouble>) -> impl Future<Output = ()> + Send;
}

/// What the reconciler needs of the edge.
pub trait Edge: EdgeView + Send + Sync + 'static {
    /// Routes exactly this from now on.
    ///
    /// # Errors
    /// The table cannot be numbered; the edge keeps the one it has.
    fn publish(&self, domains: BTreeMap<Domain, Backend>) -> Result<(), String>;
    /// Completes when the edge has said something new since the last call.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

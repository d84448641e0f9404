//! Containers' networks. Skeleton of the names; filled next.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use berth_wire::id::InstanceId;

use crate::installation::{Block, Installation};

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The block has no free address.
    #[error("no free address in {0:?}: every one is in use or still draining")]
    Full(Block),
}

/// What the agent's configuration says about the network.
#[derive(Debug, Clone, Default)]
pub struct NetworkConfig {
    /// Another block than the installation's own.
    pub block: Option<Block>,
    /// Resolvers to forward to; those of /etc/resolv.conf if empty.
    pub dns_upstream: Vec<IpAddr>,
    /// Networks containers may not reach, beyond the built-in ones (e.g. the control plane's address).
    pub denied: Vec<Block>,
}

/// A container's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The container's address.
    pub address: Ipv4Addr,
    /// Its gateway and nameserver.
    pub gateway: Ipv4Addr,
    /// The host's end of its veth.
    pub interface: String,
}

/// The network of one installation.
#[derive(Debug)]
pub struct Network {}

impl Network {
    /// Makes table, routes and sysctls, and starts the DNS server. What exists is taken over.
    ///
    /// # Errors
    /// What the kernel or nft refused.
    pub async fn open(_installation: &Installation, _config: NetworkConfig) -> Result<Self, NetworkError> {
        unimplemented!()
    }
    /// Gives the network namespace an address and a veth; repeating it is harmless.
    ///
    /// # Errors
    /// No free address, or what the kernel refused.
    pub async fn attach(&self, _id: InstanceId, _netns: BorrowedFd<'_>) -> Result<Endpoint, NetworkError> {
        unimplemented!()
    }
    /// What an instance has, its veth present or not.
    pub fn get(&self, _id: InstanceId) -> Option<Endpoint> {
        unimplemented!()
    }
    /// Removes the veth; the address stays reserved until [`Network::release`]. Idempotent.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn detach(&self, _id: InstanceId) -> Result<(), NetworkError> {
        unimplemented!()
    }
    /// Frees the address (and the veth if it is still there). Idempotent.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn release(&self, _id: InstanceId) -> Result<(), NetworkError> {
        unimplemented!()
    }
    /// Every instance that has an address.
    pub fn list(&self) -> Vec<InstanceId> {
        unimplemented!()
    }
    /// Bytes the container received and sent.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn sample(&self, _id: InstanceId) -> Result<(u64, u64), NetworkError> {
        unimplemented!()
    }
    /// Removes everything [`Network::open`] and [`Network::attach`] made, and restores sysctls.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn close_down(&self) -> Result<(), NetworkError> {
        unimplemented!()
    }
}

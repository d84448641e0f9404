//! Containers' networks: a veth each, routed as /32, no bridge; one nft table with default deny; a DNS server on the
//! gateway's address. The only module that touches interfaces, routes, nft and net sysctls.
//!
//! ```text
//! container netns               host netns
//! eth0  ADDRESS/32 ──────────── bthNN-OFFSET   route ADDRESS/32, permanent neighbour, forwarding=1
//!   default via GATEWAY           lo  `local GATEWAY` route: the DNS server's address, no interface of its own
//!                                 unreachable BLOCK: what has no container goes nowhere
//! ```
//! An address is reserved in the runtime directory before its veth exists and stays reserved after the veth is gone,
//! until [`Network::release`]: a reused address must never be misrouted to. The interface's name holds the
//! address's offset in the block, so what a crash left behind is found by name alone.

mod addresses;
pub mod dns;
mod egress;
mod forwarding;
mod inside;
mod links;
mod table;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use berth_wire::id::InstanceId;
use tokio::task::JoinSet;

use crate::installation::{Block, Installation};
use addresses::Addresses;
pub use egress::is_possible as can_limit_egress;
use links::Links;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The block has no free address.
    #[error("network: no free address in {0}: every one is in use or still draining")]
    Full(Block),
    /// Somebody else uses the block.
    #[error("network: {block} overlaps the route to {route}; set [network] block to a free range (D16)")]
    BlockInUse {
        /// The block.
        block: Block,
        /// The route that is there.
        route: Block,
    },
    /// The block is too small or too large to name interfaces by.
    #[error("network: {0} cannot be used: a block needs a prefix of 8 to 29")]
    BlockSize(Block),
    /// A file operation failed.
    #[error("network: {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("network: {action} {on}: {source}")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// On what.
        on: String,
        /// Why it failed.
        source: io::Error,
    },
    /// `nft` refused the table, or is missing.
    #[error("network: nft: {0}; the nftables package and a kernel with nf_tables are needed")]
    Nft(String),
    /// The DNS server's sockets could not be bound.
    #[error("network: bind the DNS server to {address}: {source}")]
    Dns {
        /// Where.
        address: Ipv4Addr,
        /// Why it failed.
        source: io::Error,
    },
    /// The instance has no interface.
    #[error("network: {0} has no interface")]
    NoInterface(InstanceId),
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetworkError {
    let path = path.to_owned();
    move |source| NetworkError::Io { action, path, source }
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
pub struct Network {
    table: String,
    prefix: String,
    block: Block,
    gateway: Ipv4Addr,
    mtu: u32,
    addresses: Mutex<Addresses>,
    links: Links,
    forwarding: forwarding::Forwarding,
    dns: dns::Server,
    /// Interfaces on their way out.
    leaving: Mutex<JoinSet<()>>,
}

impl Network {
    /// Makes routes, sysctls and table, and starts the DNS server. What exists is taken over: containers' traffic goes on.
    /// Needs a tokio runtime, whose worker threads are all in the agent's network namespace.
    ///
    /// # Errors
    /// A block that is in use, and whatever the kernel or nft refused.
    pub async fn open(installation: &Installation, config: NetworkConfig) -> Result<Self, NetworkError> {
        let block = config.block.unwrap_or_else(|| installation.address_block());
        let (true, Some(gateway)) = ((8..=29).contains(&block.prefix), block.nth(1)) else {
            return Err(NetworkError::BlockSize(block));
        };
        let links = Links::open()?;
        let surroundings = links.surroundings().await?;
        if let Some(route) = surroundings.routes.iter().copied().find(|route| route.overlaps(block)) {
            return Err(NetworkError::BlockInUse { block, route });
        }
        let addresses = Addresses::open(&installation.runtime_dir().join("network"), block)?;
        let prefix = installation.interface_prefix();
        links.add_block(block, gateway).await?;
        let forwarding = forwarding::Forwarding::open(installation.id(), &surroundings.uplinks)?;
        let mut denied = table::DENIED.to_vec();
        denied.extend(surroundings.neighbourhood.iter().chain(&config.denied));
        let rules = table::Rules {
            table: installation.nft_table(),
            prefix: prefix.clone(),
            block,
            gateway,
            denied,
            opened: forwarding.opened().to_vec(),
        };
        table::apply(&rules.text()).await?;
        links
            .remove_strays(&prefix, |name| {
                addresses.iter().any(|(_, a)| interface(&prefix, block, a) == name)
            })
            .await?;
        let dns = dns::Server::start(gateway, config.dns_upstream)?;
        let (table, addresses) = (rules.table, Mutex::new(addresses));
        Ok(Self {
            table,
            prefix,
            block,
            gateway,
            mtu: surroundings.mtu,
            addresses,
            links,
            forwarding,
            dns,
            leaving: Mutex::default(),
        })
    }

    fn addresses(&self) -> std::sync::MutexGuard<'_, Addresses> {
        // A panic while it was held leaves at worst an address reserved in memory only.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoint(&self, address: Ipv4Addr) -> Endpoint {
        Endpoint { address, gateway: self.gateway, interface: interface(&self.prefix, self.block, address) }
    }

    /// Gives the network namespace the instance's address (the one it has, if any) and a fresh veth, in place of an older one.
    ///
    /// # Errors
    /// No free address, or what the kernel refused; a veth that was half-made is removed.
    pub async fn attach(
        &self,
        id: InstanceId,
        netns: BorrowedFd<'_>,
        egress_bytes_per_second: u64,
    ) -> Result<Endpoint, NetworkError> {
        let address = self.addresses().reserve(id)?;
        let endpoint = self.endpoint(address);
        let netns = duplicate(netns)?;
        let pair = links::Pair::new(&endpoint, self.mtu, &id.to_string());
        self.links.remove(&endpoint.interface).await?;
        let made = async {
            self.links.add(&pair, &netns).await?;
            inside::configure(netns, pair.clone(), egress_bytes_per_second).await
        };
        if let Err(error) = made.await {
            // The first error is the one to tell; what is left goes with the network namespace.
            let _ = self.links.remove(&endpoint.interface).await;
            return Err(error);
        }
        Ok(endpoint)
    }

    /// Gives what [`Network::attach`] made for one instance to another, which has nothing.
    ///
    /// # Errors
    /// The first has nothing, or its reservation could not be renamed.
    pub fn hand_over(&self, from: InstanceId, to: InstanceId) -> Result<Endpoint, NetworkError> {
        let address = self.addresses().hand_over(from, to)?.ok_or(NetworkError::NoInterface(from))?;
        Ok(self.endpoint(address))
    }

    /// How many addresses are free.
    pub fn free(&self) -> usize {
        self.addresses().free()
    }

    /// Changes how much the container in this network namespace may send.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn limit_egress(
        &self,
        netns: BorrowedFd<'_>,
        egress_bytes_per_second: u64,
    ) -> Result<(), NetworkError> {
        inside::limit(duplicate(netns)?, egress_bytes_per_second).await
    }

    /// What an instance has, its veth present or not.
    pub fn get(&self, id: InstanceId) -> Option<Endpoint> {
        let address = self.addresses().get(id)?;
        Some(self.endpoint(address))
    }

    /// Removes the veth; the address stays reserved until [`Network::release`]. Idempotent.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn detach(&self, id: InstanceId) -> Result<(), NetworkError> {
        match self.get(id) {
            Some(endpoint) => self.links.remove(&endpoint.interface).await,
            None => Ok(()),
        }
    }

    /// Frees the address, and removes the veth if it is still there. Idempotent.
    ///
    /// # Errors
    /// What the kernel refused; the address then stays reserved.
    pub async fn release(&self, id: InstanceId) -> Result<(), NetworkError> {
        self.detach(id).await?;
        self.addresses().release(id)
    }

    /// As [`Network::detach`] or, with `release_address`, [`Network::release`], for an instance whose processes are all gone: does
    /// not wait for the interface. The kernel takes it away together with the network namespace, and needs tens of milliseconds
    /// for that (it waits until no processor can see it any more); a task in the background sees to it. A crash before it is done
    /// leaves what the next [`Network::open`] removes; [`Network::attach`] removes what has the same name.
    ///
    /// # Errors
    /// The address could not be freed.
    pub async fn leave(&self, id: InstanceId, release_address: bool) -> Result<(), NetworkError> {
        let Some(endpoint) = self.get(id) else { return Ok(()) };
        if let Some(index) = links::index(&endpoint.interface)? {
            let links = self.links.clone();
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            while leaving.try_join_next().is_some() {}
            leaving.spawn(async move {
                // By number: the name may be another container's by then.
                if let Err(error) = links.remove_index(index).await {
                    tracing::warn!(interface = endpoint.interface, %error, "interface not removed");
                }
            });
        }
        if release_address { self.addresses().release(id) } else { Ok(()) }
    }

    /// Waits until nothing is on its way out.
    pub async fn settle(&self) {
        let mut leaving = std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        while leaving.join_next().await.is_some() {}
    }

    /// Every instance that has an address.
    pub fn list(&self) -> Vec<InstanceId> {
        self.addresses().iter().map(|(id, _)| id).collect()
    }

    /// Name lookups of this address that were dropped because it asked for too many.
    pub fn lookups_dropped(&self, address: Ipv4Addr) -> u64 {
        self.dns.dropped(address.into())
    }

    /// Bytes the container received and sent.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn sample(&self, id: InstanceId) -> Result<(u64, u64), NetworkError> {
        self.sample_all()?.remove(&id).ok_or(NetworkError::NoInterface(id))
    }

    /// Bytes received and sent of every container that has an interface, from one read.
    ///
    /// # Errors
    /// An unreadable `/proc/thread-self/net/dev`.
    pub fn sample_all(&self) -> Result<HashMap<InstanceId, (u64, u64)>, NetworkError> {
        let path = Path::new("/proc/thread-self/net/dev");
        let content = fs::read_to_string(path).map_err(io_error("read", path))?;
        let counters = links::counters(&content, &self.prefix);
        let addresses = self.addresses();
        let of = |(id, address)| Some((id, *counters.get(&interface(&self.prefix, self.block, address))?));
        Ok(addresses.iter().filter_map(of).collect())
    }

    /// Removes everything [`Network::open`] and [`Network::attach`] made, and restores sysctls. Tries every part.
    ///
    /// # Errors
    /// The first thing the kernel or nft refused.
    pub async fn close_down(&self) -> Result<(), NetworkError> {
        self.dns.stop();
        self.settle().await;
        let outcomes = [
            self.links.remove_strays(&self.prefix, |_| false).await,
            table::remove(&self.table).await,
            self.links.remove_block(self.block, self.gateway).await,
            self.forwarding.restore(),
            self.addresses().remove_all(),
        ];
        outcomes.into_iter().collect()
    }
}

fn duplicate(netns: BorrowedFd<'_>) -> Result<OwnedFd, NetworkError> {
    netns.try_clone_to_owned().map_err(|source| NetworkError::Netlink {
        action: "duplicate",
        on: "network namespace".into(),
        source,
    })
}

/// The host's end of a container's veth: prefix and the address's offset in the block, in hexadecimal (at most 6 digits).
fn interface(prefix: &str, block: Block, address: Ipv4Addr) -> String {
    format!("{prefix}{:x}", u32::from(address) - u32::from(block.base))
}

#[cfg(test)]
mod tests;

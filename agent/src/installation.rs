//! The installation: the one id that everything machine-wide derives from. Skeleton of the names; filled next.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// An IPv4 network: address and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// The lowest address.
    pub base: Ipv4Addr,
    /// How many leading bits are fixed, 0..=32.
    pub prefix: u8,
}

/// Ranges of 65,536 user and group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UidBlock {
    /// The first id of the first range.
    pub base: u32,
    /// How many ranges follow each other from there.
    pub ranges: u32,
}

/// Ids in one container's range.
pub const UIDS_PER_CONTAINER: u32 = 65_536;

/// Why there is no such installation.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// The id is malformed.
    #[error("installation id {0:?}: use 1 to 32 of a-z, 0-9 and -, starting with a letter")]
    Id(String),
}

/// One installation of Berth on a machine.
#[derive(Debug, Clone)]
pub struct Installation {
    id: String,
}

impl Installation {
    /// Claims what belongs to this id.
    ///
    /// # Errors
    /// A malformed id.
    pub fn new(id: &str) -> Result<Self, InstallationError> {
        Ok(Self { id: id.to_owned() })
    }
    /// The id itself.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// Name of the cgroup that all containers are under, `berth-ID`.
    pub fn cgroup_parent(&self) -> String {
        unimplemented!()
    }
    /// Name of the nft table.
    pub fn nft_table(&self) -> String {
        unimplemented!()
    }
    /// What every interface's name starts with; 6 characters.
    pub fn interface_prefix(&self) -> String {
        unimplemented!()
    }
    /// Where containers' addresses come from.
    pub fn address_block(&self) -> Block {
        unimplemented!()
    }
    /// Where containers' user ids come from. The last range is the image unpacker's.
    pub fn uid_block(&self) -> UidBlock {
        unimplemented!()
    }
    /// `/run/berth/ID`, root's alone: what must survive the agent but not a reboot.
    pub fn runtime_dir(&self) -> &Path {
        unimplemented!()
    }
    /// Gives the claim back; the id's resources must be gone.
    pub fn release(self) {}
}

#[allow(dead_code, reason = "skeleton")]
fn unused() -> PathBuf {
    PathBuf::new()
}

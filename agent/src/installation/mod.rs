//! The installation: the one id that everything derives from which a machine has only one of (cgroup parent,
//! address block, user ids, nft table, interface names, runtime directory).
//!
//! `default` gets the production blocks. Every other id gets one of [`SLOTS`] small ones: the slot starts at the id's
//! hash, and [`claim`] probes from there, so that two installations never share one. Blocks and ranges:
//!
//! | | addresses | user ids |
//! |---|---|---|
//! | default | 198.18.0.0/16 | 2^28 .. 2^29: 4,096 ranges |
//! | slot n of 64 | the n-th /22 of 198.19.0.0/16 | 2^29 + n * 384 ranges; the last ends at 2^31 |
//!
//! Nothing here creates a cgroup, interface or table: those who do ask for their name here.

mod claim;

use std::fmt;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

pub use claim::ClaimError;

/// Installations other than `default` that fit on one machine side by side.
pub const SLOTS: u32 = 64;

/// Ids in one container's range.
pub const UIDS_PER_CONTAINER: u32 = 65_536;

/// The id of the one production installation.
pub const DEFAULT_ID: &str = "default";

/// What every Berth interface on a machine starts with, whatever the installation.
pub const INTERFACE_PREFIX_ALL: &str = "bth";

/// An IPv4 network: address and prefix length.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// The lowest address.
    pub base: Ipv4Addr,
    /// How many leading bits are fixed, 0..=32.
    pub prefix: u8,
}

impl Block {
    /// The network of this size that the address is in.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { base: Ipv4Addr::from(u32::from(address) & Self::mask(prefix)), prefix }
    }

    fn mask(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
    }

    /// How many addresses it has.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// Whether the address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & Self::mask(self.prefix) == u32::from(self.base)
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The n-th address, if there are that many.
    pub fn nth(self, n: u32) -> Option<Ipv4Addr> {
        (u64::from(n) < self.size()).then(|| Ipv4Addr::from(u32::from(self.base) + n))
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 network; write it like 198.18.0.0/16, with no bits set after the prefix")]
pub struct InvalidBlock(String);

impl FromStr for Block {
    type Err = InvalidBlock;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidBlock(text.chars().take(40).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().ok().filter(|&p| p <= 32).ok_or_else(invalid)?;
        let block = Self::containing(address, prefix);
        if block.base == address { Ok(block) } else { Err(invalid()) }
    }
}

/// Ranges of [`UIDS_PER_CONTAINER`] user and group ids, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UidBlock {
    /// The first id of the first range.
    pub base: u32,
    /// How many ranges there are.
    pub ranges: u32,
}

/// Why there is no such installation.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// The id is malformed.
    #[error("installation id {0:?}: use 1 to 32 of a-z, 0-9 and -, starting with a letter")]
    Id(String),
    /// No slot could be had.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

/// One installation of Berth on a machine.
#[derive(Debug, Clone)]
pub struct Installation {
    id: String,
    /// None is `default`.
    slot: Option<u32>,
    runtime_dir: PathBuf,
    /// Held open as long as somebody here works under the claim.
    _held: Option<Arc<File>>,
}

impl Installation {
    /// Claims what belongs to this id; the same id gets the same slot again until the claim is released, the machine restarts, or
    /// all slots are claimed and neither a process works under this claim nor anything of it is left on the machine.
    ///
    /// # Errors
    /// A malformed id; all slots in use; `/run/berth` cannot be written (not root).
    pub fn new(id: &str) -> Result<Self, InstallationError> {
        check_id(id)?;
        let (slot, held) = match id {
            DEFAULT_ID => (None, None),
            _ => {
                let (slot, held) = claim::slot(id)?;
                (Some(slot), Some(Arc::new(held)))
            }
        };
        Ok(Self { id: id.to_owned(), slot, runtime_dir: claim::runtime_dir(id)?, _held: held })
    }

    /// The id itself.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Name of the cgroup that all containers are under, `berth-ID`.
    pub fn cgroup_parent(&self) -> String {
        cgroup_parent(&self.id)
    }

    /// Name of the nft table: `berth_ID`, with `_` for `-` because nft's names know no `-`.
    pub fn nft_table(&self) -> String {
        format!("berth_{}", self.id.replace('-', "_"))
    }

    /// What every interface's name starts with: 6 of the 15 characters the kernel allows.
    pub fn interface_prefix(&self) -> String {
        interface_prefix(self.slot)
    }

    /// Where containers' addresses come from.
    pub fn address_block(&self) -> Block {
        match self.slot {
            None => Block { base: Ipv4Addr::new(198, 18, 0, 0), prefix: 16 },
            Some(slot) => slot_addresses(slot),
        }
    }

    /// Where containers' user ids come from; the unpacker's range is not among them.
    pub fn uid_block(&self) -> UidBlock {
        let whole = self.uid_block_whole();
        UidBlock { base: whole.base, ranges: whole.ranges - 1 }
    }

    /// The base of the range that the unpacker of images runs in: the block's last.
    pub fn unpacker_uid_base(&self) -> u32 {
        let whole = self.uid_block_whole();
        whole.base + (whole.ranges - 1) * UIDS_PER_CONTAINER
    }

    fn uid_block_whole(&self) -> UidBlock {
        const SLOT_RANGES: u32 = ((1 << 31) - (1 << 29)) / UIDS_PER_CONTAINER / SLOTS;
        match self.slot {
            None => UidBlock { base: 1 << 28, ranges: 4_096 },
            Some(slot) => {
                UidBlock { base: (1 << 29) + slot * SLOT_RANGES * UIDS_PER_CONTAINER, ranges: SLOT_RANGES }
            }
        }
    }

    /// `/run/berth/ID`, root's alone: what must outlive the agent but not a restart of the machine.
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// Gives the claim back. Call it when everything that derives from the id is gone.
    ///
    /// # Errors
    /// The runtime directory cannot be removed.
    pub fn release(&self) -> Result<(), InstallationError> {
        Ok(claim::release(&self.id, self.slot)?)
    }
}

fn check_id(id: &str) -> Result<(), InstallationError> {
    let characters = id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let starts = id.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    // `slots` is where the claims themselves are kept, beside the installations' directories.
    if characters && starts && id.len() <= 32 && id != claim::SLOTS_DIR {
        Ok(())
    } else {
        Err(InstallationError::Id(id.chars().take(40).collect()))
    }
}

fn cgroup_parent(id: &str) -> String {
    format!("berth-{id}")
}

fn interface_prefix(slot: Option<u32>) -> String {
    format!("{INTERFACE_PREFIX_ALL}{:02}-", slot.map_or(0, |slot| slot + 1))
}

/// The n-th /22 of 198.19.0.0/16.
fn slot_addresses(slot: u32) -> Block {
    let base = u32::from(Ipv4Addr::new(198, 19, 0, 0)) + slot * 1_024;
    Block { base: Ipv4Addr::from(base), prefix: 22 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_slot(slot: Option<u32>) -> Installation {
        Installation { id: "t-x".into(), slot, runtime_dir: PathBuf::new(), _held: None }
    }

    #[test]
    fn no_two_installations_must_share_addresses_or_user_ids() {
        let all: Vec<_> = std::iter::once(None).chain((0..SLOTS).map(Some)).map(with_slot).collect();
        for (i, a) in all.iter().enumerate() {
            let ids = a.uid_block_whole();
            assert!(u64::from(ids.base) + u64::from(ids.ranges) * 65_536 <= 1 << 31);
            assert!(a.unpacker_uid_base() >= a.uid_block().base + a.uid_block().ranges * UIDS_PER_CONTAINER);
            for b in &all[i + 1..] {
                assert!(!a.address_block().overlaps(b.address_block()));
                assert_ne!(a.interface_prefix(), b.interface_prefix());
                let other = b.uid_block_whole();
                assert!(ids.base + ids.ranges * UIDS_PER_CONTAINER <= other.base);
            }
        }
    }

    #[test]
    fn an_interface_prefix_must_have_six_characters() {
        for slot in [None, Some(0), Some(SLOTS - 1)] {
            assert_eq!(with_slot(slot).interface_prefix().len(), 6);
        }
    }

    #[test]
    fn an_id_that_could_escape_a_path_or_a_name_must_be_refused() {
        for id in ["", "-a", "1a", "a/b", "..", "A", "a_b", "slots", &"a".repeat(33)] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        check_id("t-k-01").unwrap();
    }

    #[test]
    fn a_block_must_be_read_strictly() {
        assert_eq!("198.18.0.0/16".parse::<Block>().unwrap().to_string(), "198.18.0.0/16");
        for text in ["198.18.0.1/16", "198.18.0.0", "198.18.0.0/33", "x/8", "::/0"] {
            assert!(text.parse::<Block>().is_err(), "{text}");
        }
        let everything: Block = "0.0.0.0/0".parse().unwrap();
        assert!(everything.contains(Ipv4Addr::BROADCAST));
    }
}

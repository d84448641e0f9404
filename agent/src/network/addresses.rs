//! Which instance has which address: one file per instance in the runtime directory, so that a new agent knows what an
//! old one gave away. Addresses are handed out round-robin, so that a freed one rests as long as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use berth_wire::id::InstanceId;

use super::{NetworkError, io_error};
use crate::installation::Block;

/// The reservations. The files and the map say the same after each call.
#[derive(Debug)]
pub(super) struct Addresses {
    dir: PathBuf,
    block: Block,
    by_instance: BTreeMap<InstanceId, Ipv4Addr>,
    used: BTreeSet<Ipv4Addr>,
    /// Offset where the next search starts.
    next: u32,
}

/// Offsets 0 and 1 are the network and the gateway.
const FIRST: u32 = 2;

impl Addresses {
    pub(super) fn open(dir: &Path, block: Block) -> Result<Self, NetworkError> {
        fs::create_dir_all(dir).map_err(io_error("make directory", dir))?;
        let mut by_instance = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
            let path = entry.map_err(io_error("list", dir))?.path();
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
            match (id, text.parse::<Ipv4Addr>()) {
                (Some(id), Ok(address)) if block.contains(address) => {
                    by_instance.insert(id, address);
                }
                // Half-written before a crash, or of another block: nothing can use it.
                _ => fs::remove_file(&path).map_err(io_error("remove", &path))?,
            }
        }
        let used: BTreeSet<_> = by_instance.values().copied().collect();
        let last = used.last().map_or(FIRST, |address| u32::from(*address) - u32::from(block.base) + 1);
        Ok(Self { dir: dir.to_owned(), block, by_instance, used, next: last })
    }

    /// The instance's address: the one it has, or the next free one.
    pub(super) fn reserve(&mut self, id: InstanceId) -> Result<Ipv4Addr, NetworkError> {
        if let Some(address) = self.get(id) {
            return Ok(address);
        }
        // The last one is left out: some stacks take it for the network's broadcast address.
        let count = u32::try_from(self.block.size()).unwrap_or(u32::MAX).saturating_sub(FIRST + 1);
        let start = self.next.saturating_sub(FIRST);
        let mut offsets = (0..count).map(|i| FIRST + (start + i) % count);
        let free = offsets.find_map(|offset| {
            self.block
                .nth(offset)
                .filter(|address| !self.used.contains(address))
                .map(|address| (offset, address))
        });
        let (offset, address) = free.ok_or(NetworkError::Full(self.block))?;
        let path = self.dir.join(id.to_string());
        fs::write(&path, address.to_string()).map_err(io_error("write", &path))?;
        self.next = offset + 1;
        self.by_instance.insert(id, address);
        self.used.insert(address);
        Ok(address)
    }

    /// Gives one instance's address to another, which has none.
    pub(super) fn hand_over(
        &mut self,
        from: InstanceId,
        to: InstanceId,
    ) -> Result<Option<Ipv4Addr>, NetworkError> {
        let Some(address) = self.get(from) else { return Ok(None) };
        let path = self.dir.join(from.to_string());
        fs::rename(&path, self.dir.join(to.to_string())).map_err(io_error("rename", &path))?;
        self.by_instance.remove(&from);
        self.by_instance.insert(to, address);
        Ok(Some(address))
    }

    /// How many addresses nobody has.
    pub(super) fn free(&self) -> usize {
        // Without network, gateway and last, as in `reserve`.
        usize::try_from(self.block.size()).unwrap_or(usize::MAX).saturating_sub(3 + self.used.len())
    }

    pub(super) fn get(&self, id: InstanceId) -> Option<Ipv4Addr> {
        self.by_instance.get(&id).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (InstanceId, Ipv4Addr)> {
        self.by_instance.iter().map(|(id, address)| (*id, *address))
    }

    pub(super) fn release(&mut self, id: InstanceId) -> Result<(), NetworkError> {
        let Some(address) = self.get(id) else { return Ok(()) };
        let path = self.dir.join(id.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &path)(error));
            }
            _ => {}
        }
        self.by_instance.remove(&id);
        self.used.remove(&address);
        Ok(())
    }

    pub(super) fn remove_all(&mut self) -> Result<(), NetworkError> {
        self.by_instance.clear();
        self.used.clear();
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &self.dir)(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn block() -> Block {
        "198.19.0.0/29".parse().unwrap()
    }

    fn id() -> InstanceId {
        InstanceId(Uuid::now_v7())
    }

    #[test]
    fn an_address_must_be_reserved_across_a_restart_until_released() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (id(), id());
        let mut addresses = Addresses::open(dir.path(), block()).unwrap();
        let address = addresses.reserve(a).unwrap();
        assert_eq!(address, Ipv4Addr::new(198, 19, 0, 2));
        let mut addresses = Addresses::open(dir.path(), block()).unwrap();
        assert_eq!(addresses.reserve(a).unwrap(), address);
        assert_ne!(addresses.reserve(b).unwrap(), address);
        addresses.release(a).unwrap();
        addresses.release(a).unwrap();
        assert_eq!(addresses.get(a), None);
        assert_eq!(Addresses::open(dir.path(), block()).unwrap().iter().count(), 1);
    }

    #[test]
    fn an_address_handed_over_must_be_the_other_s_after_a_restart_too() {
        let dir = tempfile::tempdir().unwrap();
        let (ahead, container) = (id(), id());
        let mut addresses = Addresses::open(dir.path(), block()).unwrap();
        let address = addresses.reserve(ahead).unwrap();
        assert_eq!(addresses.hand_over(ahead, container).unwrap(), Some(address));
        assert_eq!(addresses.hand_over(ahead, container).unwrap(), None);
        // /29: 8 less network, gateway, last and this one.
        assert_eq!((addresses.get(ahead), addresses.free()), (None, 4));
        assert_eq!(Addresses::open(dir.path(), block()).unwrap().get(container), Some(address));
    }

    #[test]
    fn a_freed_address_must_rest_while_others_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let mut addresses = Addresses::open(dir.path(), block()).unwrap();
        let first = id();
        let freed = addresses.reserve(first).unwrap();
        addresses.release(first).unwrap();
        // /29: 8 less network, gateway and last.
        let given: Vec<_> = (0..5).map(|_| addresses.reserve(id()).unwrap()).collect();
        assert_eq!(given.last(), Some(&freed));
        assert!(matches!(addresses.reserve(id()), Err(NetworkError::Full(_))));
    }

    #[test]
    fn a_half_written_reservation_must_be_dropped() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(id().to_string()), "198.1").unwrap();
        fs::write(dir.path().join("stray"), "198.19.0.3").unwrap();
        assert_eq!(Addresses::open(dir.path(), block()).unwrap().iter().count(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

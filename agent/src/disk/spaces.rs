//! The spaces there are, what each was promised, and the limits that follow from it: set when one is made and anew
//! while [`Spaces::rebalance`] is called. How far each may go is decided in [`super::shares`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_wire::quota::Bounds;

use super::shares::{self, Shares, Space};
use super::{DiskError, INSTANCES, LAYERS, btrfs, io_error};

/// Floor and max, kept with the space itself for the next agent: both as u64, little endian. Nobody inside sees the subvolume's root.
const BOUNDS: &str = "trusted.berth.disk";

/// Whether every space could write up to its max.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plenty {
    ForAll,
    No,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    group: u64,
    bounds: Bounds,
    limit: u64,
}

#[derive(Debug)]
pub(super) struct Spaces {
    root: PathBuf,
    /// The pool's directory of quota groups in sysfs.
    groups: PathBuf,
    shares: Shares,
    /// Held while limits are set: one that is forgotten gets none any more.
    known: Mutex<BTreeMap<PathBuf, Kept>>,
}

impl Spaces {
    /// Makes the groups, and takes up the spaces that are there.
    pub(super) fn open(root: &Path, instances: &Path, shares: Shares) -> Result<Self, DiskError> {
        for (group, bytes_max) in [(INSTANCES, shares.instances_bytes()), (LAYERS, shares.layers_bytes)] {
            btrfs::group_create(root, group).map_err(io_error("make a quota group of", root))?;
            btrfs::limit_group(root, group, bytes_max).map_err(io_error("limit a quota group of", root))?;
        }
        let uuid = btrfs::uuid(root).map_err(io_error("identify", root))?;
        let groups = PathBuf::from(format!("/sys/fs/btrfs/{uuid}/qgroups"));
        let spaces = Self { root: root.to_owned(), groups, shares, known: Mutex::default() };
        for entry in fs::read_dir(instances).map_err(io_error("list", instances))? {
            let dir = entry.map_err(io_error("list", instances))?.path();
            // One without bounds was interrupted while it was made, and is made anew or removed.
            if let Some(bounds) = bounds_of(&dir) {
                spaces.admit(&dir, bounds)?;
            }
        }
        spaces.rebalance()?;
        Ok(spaces)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Kept>> {
        // Each change under the lock is one insertion or removal: nothing is half-done after a panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises a space its floor and limits it; again with other bounds changes them.
    pub(super) fn admit(&self, dir: &Path, bounds: Bounds) -> Result<(), DiskError> {
        if bounds_of(dir) != Some(bounds) {
            // One that is full could not be told that it is larger now.
            btrfs::limit(dir, None).map_err(io_error("lift the limit of", dir))?;
            let bytes = [bounds.floor.to_le_bytes(), bounds.max.to_le_bytes()].concat();
            rustix::fs::setxattr(dir, BOUNDS, &bytes, rustix::fs::XattrFlags::empty())
                .map_err(|errno| io_error("note the quota of", dir)(errno.into()))?;
        }
        let group = btrfs::subvolume_id(dir).map_err(io_error("look up", dir))?;
        btrfs::join_group(dir, INSTANCES).map_err(io_error("count", dir))?;
        let mut known = self.known();
        let mut kept = Kept { group, bounds, limit: u64::MAX };
        let limit = self.first_limit(&known, &kept)?;
        self.set_limit(&mut kept, limit).map_err(io_error("limit", dir))?;
        known.insert(dir.to_owned(), kept);
        Ok(())
    }

    fn first_limit(&self, known: &BTreeMap<PathBuf, Kept>, new: &Kept) -> Result<u64, DiskError> {
        let Some(burst) = self.shares.burst_bytes else { return Ok(new.bounds.max) };
        if shares::all_at_max(self.used(INSTANCES)?, new.bounds.max, burst) {
            return Ok(new.bounds.max);
        }
        let others: Vec<Space> = known
            .values()
            .filter(|kept| kept.group != new.group)
            .filter_map(|kept| self.look(kept))
            .collect();
        let space = Space { used: self.used(new.group)?, floor: new.bounds.floor, max: new.bounds.max };
        let left = shares::burst_left(others.iter().chain([&space]), burst);
        Ok(shares::limit(&space, left))
    }

    /// It has another name now.
    pub(super) fn rename(&self, from: &Path, to: &Path) {
        let mut known = self.known();
        if let Some(kept) = known.remove(from) {
            known.insert(to.to_owned(), kept);
        }
    }

    /// No limit is set on it any more.
    pub(super) fn forget(&self, dir: &Path) {
        self.known().remove(dir);
    }

    /// Sets every limit anew that is no longer right. While there is plenty for all it reads one counter.
    pub(super) fn rebalance(&self) -> Result<Plenty, DiskError> {
        let Some(burst) = self.shares.burst_bytes else { return Ok(Plenty::ForAll) };
        let mut known = self.known();
        let max_largest = known.values().map(|kept| kept.bounds.max).max().unwrap_or(0);
        let plenty = shares::all_at_max(self.used(INSTANCES)?, max_largest, burst);
        if plenty && known.values().all(|kept| kept.limit == kept.bounds.max) {
            return Ok(Plenty::ForAll);
        }
        let looked: Vec<Option<Space>> = known.values().map(|kept| self.look(kept)).collect();
        let left = shares::burst_left(looked.iter().flatten(), burst);
        for (kept, space) in known.values_mut().zip(looked) {
            // Gone below our feet: its removal is on its way here.
            let Some(space) = space else { continue };
            let limit = shares::limit(&space, left);
            if limit != kept.limit {
                self.set_limit(kept, limit).map_err(io_error("limit a space of", &self.root))?;
            }
        }
        Ok(Plenty::No)
    }

    fn set_limit(&self, kept: &mut Kept, limit: u64) -> io::Result<()> {
        btrfs::limit_group(&self.root, kept.group, Some(limit))?;
        kept.limit = limit;
        Ok(())
    }

    fn look(&self, kept: &Kept) -> Option<Space> {
        let used = self.used(kept.group).ok()?;
        Some(Space { used, floor: kept.bounds.floor, max: kept.bounds.max })
    }

    /// What a space holds, and how far it may go at the moment.
    pub(super) fn usage(&self, dir: &Path) -> Result<(u64, u64), DiskError> {
        let kept = self.known().get(dir).copied();
        let kept = kept.ok_or_else(|| io_error("look up", dir)(io::ErrorKind::NotFound.into()))?;
        Ok((self.used(kept.group)?, kept.limit))
    }

    /// What instances may still hold above their floors; none: no bound.
    pub(super) fn burst_left(&self) -> Option<u64> {
        let burst = self.shares.burst_bytes?;
        let looked: Vec<Space> = self.known().values().filter_map(|kept| self.look(kept)).collect();
        Some(shares::burst_left(looked.iter(), burst))
    }

    /// Bytes that all layers together hold.
    pub(super) fn layers_used(&self) -> Result<u64, DiskError> {
        self.used(LAYERS)
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// What is on disk, and what is on its way there (`rsv_data`): the former alone lags by a commit, up to 30 seconds. The
    /// kernel compares the sum with the limit (fs/btrfs/qgroup.c, qgroup_check_limits).
    fn used(&self, group: u64) -> Result<u64, DiskError> {
        let dir = self.groups.join(format!("{}_{}", group >> 48, group & ((1 << 48) - 1)));
        let read = |file: &str| {
            let path = dir.join(file);
            let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
            let bytes = text.trim().parse::<u64>();
            bytes.map_err(|_| io_error("understand", &path)(io::ErrorKind::InvalidData.into()))
        };
        Ok(read("referenced")?.saturating_add(read("rsv_data")?))
    }
}

fn bounds_of(dir: &Path) -> Option<Bounds> {
    let mut bytes = [0; 16];
    let length = rustix::fs::getxattr(dir, BOUNDS, &mut bytes).ok()?;
    let (floor, max) = bytes.get(..length)?.split_first_chunk::<8>()?;
    Some(Bounds::new(u64::from_le_bytes(*floor), u64::from_le_bytes(max.try_into().ok()?)))
}

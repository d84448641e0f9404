//! Containers' disks. Skeleton of the names; filled next.

use std::path::{Path, PathBuf};

use berth_wire::id::InstanceId;

use crate::installation::Installation;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file operation failed.
    #[error("disk: {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// One container's writable space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scratch {
    /// The subvolume, on which the limit is.
    pub dir: PathBuf,
    /// The overlay's upper directory; owned by on-disk id 0, to be used through an idmapped mount.
    pub upper: PathBuf,
    /// The overlay's work directory.
    pub work: PathBuf,
}

/// The pool: one preallocated btrfs image.
#[derive(Debug)]
pub struct Disk {}

impl Disk {
    /// Makes or re-opens the pool and mounts it at `data_dir/pool`.
    ///
    /// # Errors
    /// A full host disk (D13), a missing program, what the kernel refused.
    pub async fn open(
        _installation: &Installation,
        _data_dir: &Path,
        _pool_bytes: u64,
    ) -> Result<Self, DiskError> {
        unimplemented!()
    }
    /// Makes a container's space; one that exists keeps its content and gets the new limit.
    ///
    /// # Errors
    /// A full pool (D13) or what the kernel refused.
    pub async fn create(&self, _id: InstanceId, _disk_bytes_max: u64) -> Result<Scratch, DiskError> {
        unimplemented!()
    }
    /// An existing container's space.
    pub fn get(&self, _id: InstanceId) -> Option<Scratch> {
        unimplemented!()
    }
    /// Bytes it uses.
    ///
    /// # Errors
    /// An unreadable counter.
    pub fn usage(&self, _id: InstanceId) -> Result<u64, DiskError> {
        unimplemented!()
    }
    /// Removes it; idempotent.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove(&self, _id: InstanceId) -> Result<(), DiskError> {
        unimplemented!()
    }
    /// Every instance that has a space.
    ///
    /// # Errors
    /// An unreadable pool.
    pub fn list(&self) -> Result<Vec<InstanceId>, DiskError> {
        unimplemented!()
    }
    /// Where layers are kept, on the same file system.
    pub fn layers_dir(&self) -> PathBuf {
        unimplemented!()
    }
    /// Size of the pool and bytes free in it.
    ///
    /// # Errors
    /// A failed statfs.
    pub fn space(&self) -> Result<(u64, u64), DiskError> {
        unimplemented!()
    }
    /// Unmounts and detaches; the image file stays.
    ///
    /// # Errors
    /// A mount that is still in use.
    pub async fn close(&self) -> Result<(), DiskError> {
        unimplemented!()
    }
}

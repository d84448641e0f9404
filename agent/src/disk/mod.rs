//! Containers' disks: one subvolume each, with a limit on its quota group, in a pool that is one preallocated btrfs image.
//!
//! ```text
//! DATA/pool.img   fallocated in full: a sparse image would turn read-only for everyone once the host fills
//!   └─ loop device (detaches itself) ─ btrfs at DATA/pool: private, nosuid, nodev; DATA is root's alone
//!        ├─ instances/INSTANCE   subvolume, limited     upper/ and work/ in one, because rename across is EXDEV
//!        └─ layers/              not limited; the image store's
//! ```
//! The limit counts metadata too (16 KiB nodes; an inode, its name and inline data take about 400 to 2,500 bytes), which is what
//! bounds a flood of small files: btrfs has no limit on inodes. On kernels with simple quotas (6.7) an extent belongs to the
//! subvolume that wrote it and accounting costs next to nothing; older ones use full quota groups, which cost time
//! at every commit but, without snapshots, no more than that.
//!
//! The only module that knows btrfs, loop devices and the pool's mount. Overlays are mounted by the launcher.

pub(crate) mod btrfs;
mod loopback;
mod pool;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_wire::id::InstanceId;

use crate::installation::Installation;
use pool::Pool;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file operation failed.
    #[error("disk: {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The host's file system has no room for the pool.
    #[error("disk: {} has no room for a pool of {bytes} bytes; free some or set a smaller pool_bytes (D13)", .dir.display())]
    HostFull {
        /// The data directory.
        dir: PathBuf,
        /// What was asked for.
        bytes: u64,
    },
    /// The pool is full.
    #[error("disk: the pool at {} is full; remove apps or images, or enlarge pool_bytes (D13)", .0.display())]
    PoolFull(PathBuf),
    /// Less than what btrfs can work in.
    #[error("disk: a pool of {0} bytes is too small; it needs {least} at least", least = pool::BYTES_MIN)]
    PoolTooSmall(u64),
    /// mkfs.btrfs failed or is missing.
    #[error("disk: mkfs.btrfs: {0}; the btrfs-progs package is needed (D15)")]
    Format(String),
    /// Something else is mounted where the pool belongs.
    #[error("disk: something that is not the pool is mounted at {}; unmount it", .0.display())]
    Foreign(PathBuf),
    /// The task was cancelled because the process ends.
    #[error("disk: interrupted")]
    Interrupted,
}

/// `ENOSPC` in the pool has a name of its own.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull => DiskError::PoolFull(path),
        _ => DiskError::Io { action, path, source },
    }
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

/// The pool, mounted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Disk {
    pool: Arc<Pool>,
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| DiskError::Interrupted)?
}

impl Disk {
    /// Makes or re-opens the pool and mounts it at `data_dir/pool`; a larger `pool_bytes` than before enlarges it.
    ///
    /// # Errors
    /// A full host disk (D13), a missing program (D15), what the kernel refused.
    pub async fn open(
        installation: &Installation,
        data_dir: &Path,
        pool_bytes: u64,
    ) -> Result<Self, DiskError> {
        let (label, data_dir) = (format!("berth-{}", installation.id()), data_dir.to_owned());
        let pool = blocking(move || Pool::open(&label, &data_dir, pool_bytes)).await?;
        Ok(Self { pool: Arc::new(pool) })
    }

    fn scratch(&self, id: InstanceId) -> Scratch {
        let dir = self.pool.instances_dir().join(id.to_string());
        Scratch { upper: dir.join("upper"), work: dir.join("work"), dir }
    }

    /// Makes a container's space; one that exists keeps its content and gets the new limit.
    ///
    /// # Errors
    /// A full pool (D13) or what the kernel refused; what was made is removed again.
    pub async fn create(&self, id: InstanceId, disk_bytes_max: u64) -> Result<Scratch, DiskError> {
        let (pool, scratch) = (self.pool.clone(), self.scratch(id));
        blocking(move || {
            let new = !scratch.dir.exists();
            let made = pool.make_space(&scratch, disk_bytes_max);
            if new && made.is_err() {
                // The first error is the one to tell.
                let _ = pool.remove_space(&scratch.dir);
            }
            made.map(|()| scratch)
        })
        .await
    }

    /// Gives one container's space to another, which has none, with another limit if one is given. One rename and one ioctl: does
    /// not need a thread of its own.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn hand_over(
        &self,
        from: InstanceId,
        to: InstanceId,
        disk_bytes_max: Option<u64>,
    ) -> Result<Scratch, DiskError> {
        let (old, scratch) = (self.scratch(from).dir, self.scratch(to));
        fs::rename(&old, &scratch.dir).map_err(io_error("rename", &old))?;
        if let Some(bytes_max) = disk_bytes_max {
            btrfs::limit(&scratch.dir, Some(bytes_max)).map_err(io_error("limit", &scratch.dir))?;
        }
        Ok(scratch)
    }

    /// Gives an existing space another limit.
    ///
    /// # Errors
    /// It is not there, or what the kernel refused.
    pub async fn limit(&self, id: InstanceId, disk_bytes_max: u64) -> Result<(), DiskError> {
        let dir = self.scratch(id).dir;
        blocking(move || btrfs::limit(&dir, Some(disk_bytes_max)).map_err(io_error("limit", &dir))).await
    }

    /// An existing container's space.
    pub fn get(&self, id: InstanceId) -> Option<Scratch> {
        Some(self.scratch(id)).filter(|scratch| scratch.upper.is_dir() && scratch.work.is_dir())
    }

    /// Bytes it uses, metadata included. What was written less than a commit ago (30 s) may be missing.
    ///
    /// # Errors
    /// It is not there, or its counter is unreadable.
    pub fn usage(&self, id: InstanceId) -> Result<u64, DiskError> {
        self.pool.usage(&self.scratch(id).dir)
    }

    /// Removes it; idempotent. The space is given back in the background.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn remove(&self, id: InstanceId) -> Result<(), DiskError> {
        let (pool, dir) = (self.pool.clone(), self.scratch(id).dir);
        blocking(move || pool.remove_space(&dir)).await
    }

    /// Every instance that has a space, half-made ones included.
    ///
    /// # Errors
    /// An unreadable pool.
    pub fn list(&self) -> Result<Vec<InstanceId>, DiskError> {
        let dir = self.pool.instances_dir();
        let mut ids = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let entry = entry.map_err(io_error("list", &dir))?;
            ids.extend(entry.file_name().to_str().and_then(|name| name.parse::<InstanceId>().ok()));
        }
        Ok(ids)
    }

    /// Where layers are kept, on the same file system.
    pub fn layers_dir(&self) -> PathBuf {
        self.pool.layers_dir()
    }

    /// Size of the pool and bytes free in it.
    ///
    /// # Errors
    /// A failed statfs.
    pub fn space(&self) -> Result<(u64, u64), DiskError> {
        self.pool.space()
    }

    /// Unmounts the pool, which detaches its loop device; the image file stays. Idempotent.
    ///
    /// # Errors
    /// A mount that is still in use.
    pub async fn close(&self) -> Result<(), DiskError> {
        let pool = self.pool.clone();
        blocking(move || pool.close()).await
    }
}

#[cfg(test)]
mod tests;

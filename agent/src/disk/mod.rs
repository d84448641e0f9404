//! Containers' disks: one subvolume each, with a limit on its quota group, in a pool that is one preallocated btrfs image.
//!
//! ```text
//! DATA/pool.img   fallocated in full: a sparse image would turn read-only for everyone once the host fills
//!   └─ loop device (detaches itself) ─ btrfs at DATA/pool: private, nosuid, nodev; DATA is root's alone
//!        ├─ instances/INSTANCE   subvolume, limited     upper/ and work/ in one, because rename across is EXDEV
//!        └─ layers/              the image store's
//! ```
//! Maxima promise more than the pool has. Two quota groups of groups, one of all instances and one of all layers, keep a part of
//! it for each, and limits that follow what is free keep what is under a floor for whoever it was promised to: see [`shares`].
//!
//! The limit counts metadata too (16 KiB nodes; an inode, its name and inline data take about 400 to 2,500 bytes), which is what
//! bounds a flood of small files: btrfs has no limit on inodes. On kernels with simple quotas (6.7) an extent belongs to the
//! subvolume that wrote it and accounting costs next to nothing; older ones use full quota groups, which cost time
//! at every commit but, without snapshots, no more than that.
//!
//! [`zram`] is beside it: swap for idle instances. The only module that knows btrfs, loop devices, zram and the pool's mount. Overlays are mounted by the launcher.

pub(crate) mod btrfs;
mod loopback;
mod pool;
pub mod shares;
mod spaces;
pub mod zram;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_wire::id::InstanceId;
use berth_wire::quota::Bounds;

use crate::installation::Installation;
use pool::Pool;
use shares::Shares;
use spaces::Plenty;

/// All instances' spaces count in this quota group, all layers in the other.
const INSTANCES: u64 = btrfs::group_of_groups(0);
const LAYERS: u64 = btrfs::group_of_groups(1);

/// How often it is looked whether limits are right, while everybody's is its max.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often limits are set anew once there is less: a writer that is faster than a quarter of the rest in this time is stopped early.
const REBALANCE_EVERY: Duration = Duration::from_millis(100);
/// Of a thread's time, the part that this may take on a host with many instances.
const REBALANCE_SHARE: u32 = 20;

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

/// `ENOSPC` in the pool has a name of its own, and so has `EDQUOT`: the agent itself writes too little to reach a space's own limit.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::PoolFull(path),
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
    /// Makes or re-opens the pool and mounts it at `data_dir/pool`; one that is larger than before is enlarged.
    ///
    /// # Errors
    /// A full host disk (D13), a missing program (D15), what the kernel refused.
    pub async fn open(
        installation: &Installation,
        data_dir: &Path,
        shares: Shares,
    ) -> Result<Self, DiskError> {
        let (label, data_dir) = (format!("berth-{}", installation.id()), data_dir.to_owned());
        let pool = blocking(move || Pool::open(&label, &data_dir, shares)).await?;
        Ok(Self { pool: Arc::new(pool) })
    }

    fn scratch(&self, id: InstanceId) -> Scratch {
        let dir = self.pool.instances_dir().join(id.to_string());
        Scratch { upper: dir.join("upper"), work: dir.join("work"), dir }
    }

    /// Makes a container's space; one that exists keeps its content and gets the new quota.
    ///
    /// # Errors
    /// A full pool (D13) or what the kernel refused; what was made is removed again.
    pub async fn create(&self, id: InstanceId, bounds: Bounds) -> Result<Scratch, DiskError> {
        let (pool, scratch) = (self.pool.clone(), self.scratch(id));
        blocking(move || {
            let new = !scratch.dir.exists();
            let made = pool.make_space(&scratch, bounds);
            if new && made.is_err() {
                // The first error is the one to tell.
                let _ = pool.remove_space(&scratch.dir);
            }
            made.map(|()| scratch)
        })
        .await
    }

    /// Gives one container's space to another, which has none, with its own quota. One rename and a few calls that
    /// wait for no disk: does not need a thread of its own.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn hand_over(&self, from: InstanceId, to: InstanceId, bounds: Bounds) -> Result<Scratch, DiskError> {
        let (old, scratch) = (self.scratch(from).dir, self.scratch(to));
        fs::rename(&old, &scratch.dir).map_err(io_error("rename", &old))?;
        self.pool.spaces().rename(&old, &scratch.dir);
        self.pool.spaces().admit(&scratch.dir, bounds)?;
        Ok(scratch)
    }

    /// Gives an existing space another quota.
    ///
    /// # Errors
    /// It is not there, or what the kernel refused.
    pub async fn set_quota(&self, id: InstanceId, bounds: Bounds) -> Result<(), DiskError> {
        let (pool, dir) = (self.pool.clone(), self.scratch(id).dir);
        blocking(move || pool.spaces().admit(&dir, bounds)).await
    }

    /// An existing container's space.
    pub fn get(&self, id: InstanceId) -> Option<Scratch> {
        Some(self.scratch(id)).filter(|scratch| scratch.upper.is_dir() && scratch.work.is_dir())
    }

    /// Bytes it uses, metadata included, and how many it may use at the moment: its max, or less while others hold what is not
    /// reserved. What was just written counts; metadata may be missing until the next commit (30 s).
    ///
    /// # Errors
    /// It is not there, or its counter is unreadable.
    pub fn usage(&self, id: InstanceId) -> Result<(u64, u64), DiskError> {
        self.pool.spaces().usage(&self.scratch(id).dir)
    }

    /// To be called before its upper becomes a layer: what is a layer is no instance's.
    pub fn leave_to_layers(&self, id: InstanceId) {
        self.pool.spaces().forget(&self.scratch(id).dir);
    }

    /// Keeps for everybody what is under their floors, for ever: without it the limits stay what they were when spaces were made.
    pub async fn keep_floors(self) -> std::convert::Infallible {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::time::sleep(pause).await;
            let (pool, begun) = (self.pool.clone(), Instant::now());
            pause = match blocking(move || pool.spaces().rebalance()).await {
                Ok(Plenty::ForAll) => LOOK_EVERY,
                Ok(Plenty::No) => REBALANCE_EVERY.max(begun.elapsed() * REBALANCE_SHARE),
                Err(error) => {
                    tracing::warn!(%error, "could not set the disk limits anew");
                    LOOK_EVERY
                }
            };
        }
    }

    /// How the pool is divided.
    pub fn shares(&self) -> &Shares {
        self.pool.spaces().shares()
    }

    /// Bytes that instances may still take above their floors; none where nothing bounds them.
    pub fn burst_left(&self) -> Option<u64> {
        self.pool.spaces().burst_left()
    }

    /// Bytes that all layers together take.
    ///
    /// # Errors
    /// An unreadable counter.
    pub fn layers_used(&self) -> Result<u64, DiskError> {
        self.pool.spaces().layers_used()
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

    /// Major and minor number of the block device that all of it is on.
    ///
    /// # Errors
    /// It is not mounted.
    pub fn device(&self) -> Result<(u32, u32), DiskError> {
        self.pool.device()
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

/// Makes a subvolume of the image store count as a layer. Does nothing where the store is not on a pool.
pub(crate) fn count_as_layer(subvolume: &Path) {
    let counted = btrfs::join_group(subvolume, LAYERS);
    tracing::trace!(?counted, subvolume = %subvolume.display(), "counted as a layer");
}

/// The same for what was an instance's space: it counts as that no longer, and its limit is lifted.
pub(crate) fn turn_into_layer(subvolume: &Path) {
    let turned = btrfs::leave_group(subvolume, INSTANCES).and_then(|()| btrfs::limit(subvolume, None));
    tracing::trace!(?turned, subvolume = %subvolume.display(), "no instance's space any more");
    count_as_layer(subvolume);
}

#[cfg(test)]
mod tests;

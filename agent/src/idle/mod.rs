//! An idle instance costs almost nothing: it stands still, and its memory is given back. These are the primitives; which instance is idle,
//! and what wakes it, is not decided here, and nothing does so yet.
//!
//! ```text
//!   running ── freeze ──> frozen ── reclaim ──> frozen, its pages dropped or in compressed swap
//!      ^                    │                       │
//!      └────── thaw ────────┴───────────────────────┘     pages come back as they are touched
//! ```
//! *Freeze* is the unified group's cgroup.freeze, on hybrid machines, too: no process runs, none is killed, connections stay. The kernel
//! still accepts new ones into the backlog, so that whoever thaws because of one loses nothing.
//! *Reclaim* takes page cache and, only where the operator chose swap (`[idle] swap = "zram"`), the instance's own pages, whatever swap its
//! quota allows while it runs: an idle app would otherwise keep all it ever touched. The swap is a zram device of our own.
//! *Thaw* restores the quota first.
//!
//! Memory is shown as it is: what is charged to the group (resident) and what of it is swapped out, side by side, never one for the other; what
//! the swapped part costs compressed is the device's, and shared by all ([`crate::disk::zram::Zram::usage`]). A frozen instance's health checks
//! fail: whoever freezes must have stopped them.

use std::fs;
use std::io;

use berth_wire::id::InstanceId;
use berth_wire::quota::Quota;

use crate::cgroup::{Cgroup, CgroupError};
use crate::container::Host;
use crate::disk::zram::{self, Zram};
use crate::installation::Installation;

/// What could not be done with an instance.
#[derive(Debug, thiserror::Error)]
pub enum IdleError {
    /// It has no container.
    #[error("idle: {0} has no container")]
    Gone(InstanceId),
    /// A process hangs in the kernel; it was let go again.
    #[error("idle: a process of {0} does not stand still; it waits in the kernel, probably for a disk")]
    Restless(InstanceId),
    /// The kernel's refusal.
    #[error("idle: {0}")]
    Cgroup(#[from] CgroupError),
    /// The task was cancelled because the process ends.
    #[error("idle: interrupted")]
    Interrupted,
}

/// An instance's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Charged to it, in bytes.
    pub resident_bytes: u64,
    /// Its own pages that are swapped out, in bytes before compression.
    pub swapped_bytes: u64,
}

impl Host {
    /// Has an instance stand still.
    ///
    /// # Errors
    /// It does not, and then runs on.
    pub async fn freeze(&self, id: InstanceId) -> Result<(), IdleError> {
        let frozen = self.on_group(id, |group| {
            let all = group.freeze()?;
            if !all {
                group.thaw()?;
            }
            Ok(all)
        });
        if frozen.await? { Ok(()) } else { Err(IdleError::Restless(id)) }
    }

    /// Takes back what memory it can of a frozen instance; with `swap`, its own pages, too.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn reclaim(&self, id: InstanceId, swap: bool) -> Result<Footprint, IdleError> {
        self.on_group(id, move |group| {
            group.reclaim(swap)?;
            footprint(group)
        })
        .await
    }

    /// Lets it run again, under its quota.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn thaw(&self, id: InstanceId, quota: Quota) -> Result<(), IdleError> {
        self.on_group(id, move |group| {
            group.end_reclaim(&quota)?;
            group.thaw()
        })
        .await
    }

    /// What it takes now.
    ///
    /// # Errors
    /// An unreadable file.
    pub async fn footprint(&self, id: InstanceId) -> Result<Footprint, IdleError> {
        self.on_group(id, footprint).await
    }

    /// Reclaiming takes as long as compressing does: on a thread for what blocks.
    async fn on_group<T: Send + 'static>(
        &self,
        id: InstanceId,
        action: impl FnOnce(&Cgroup) -> Result<T, CgroupError> + Send + 'static,
    ) -> Result<T, IdleError> {
        let group = self.cgroups.get(id)?.ok_or(IdleError::Gone(id))?;
        let done = tokio::task::spawn_blocking(move || action(&group)).await;
        Ok(done.map_err(|_| IdleError::Interrupted)??)
    }
}

/// What compressed swap may hold, of all memory. Pages shrink to a third or less as a rule, so that it takes a sixth when it is full.
const SWAP_PARTS: u64 = 2;

/// Makes the compressed swap, or takes over the one of an earlier agent.
///
/// # Errors
/// The kernel's refusal.
pub fn set_up_swap(installation: &Installation) -> io::Result<Zram> {
    fs::create_dir_all(installation.runtime_dir())?;
    Zram::set_up(&installation.runtime_dir().join(SWAP_RECORD), zram::memory_bytes()? / SWAP_PARTS)
}

/// Removes it, if there is one.
///
/// # Errors
/// Not enough memory for what is in it.
pub fn remove_swap(installation: &Installation) -> io::Result<()> {
    Zram::find(&installation.runtime_dir().join(SWAP_RECORD)).map_or(Ok(()), Zram::remove)
}

const SWAP_RECORD: &str = "zram";

fn footprint(group: &Cgroup) -> Result<Footprint, CgroupError> {
    let sample = group.sample()?;
    Ok(Footprint { resident_bytes: sample.memory_usage_bytes, swapped_bytes: sample.memory_swap_bytes })
}

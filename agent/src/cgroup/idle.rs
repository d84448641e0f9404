//! A container's groups while it is idle: standing still, and giving its memory back. When that is done is decided elsewhere.

use std::fs::File;
use std::os::fd::AsFd as _;

use berth_wire::quota::Quota;

use super::control::{self, CgroupError, apply, io_error, read_number, write};
use super::control::{Kept, Setting};
use super::{Cgroup, v2};

/// How long a process may take to stand still: one in an uninterruptible wait takes as long as its disk does.
const FREEZE_WAIT_MS_MAX: i64 = 2_000;

/// So often is reclaim asked for again: the kernel gives up early where pages were just used.
const RECLAIM_ROUNDS_MAX: u32 = 4;

impl Cgroup {
    /// Has every process stand still (cgroup.freeze of the unified group; on hybrid machines, too) and waits for it; says whether all do.
    ///
    /// # Errors
    /// A refused write.
    pub fn freeze(&self) -> Result<bool, CgroupError> {
        let unified = &self.groups.unified;
        let path = unified.join("cgroup.events");
        let events = File::open(&path).map_err(io_error("open", &path))?;
        write(&unified.join("cgroup.freeze"), "1")?;
        let wait = rustix::time::Timespec {
            tv_sec: FREEZE_WAIT_MS_MAX / 1_000,
            tv_nsec: FREEZE_WAIT_MS_MAX % 1_000 * 1_000_000,
        };
        loop {
            let mut content = [0; 256];
            let length = std::os::unix::fs::FileExt::read_at(&events, &mut content, 0).unwrap_or(0);
            if control::keyed(&String::from_utf8_lossy(&content[..length]), "frozen") == Some(1) {
                return Ok(true);
            }
            let mut polled =
                [rustix::event::PollFd::from_borrowed_fd(events.as_fd(), rustix::event::PollFlags::PRI)];
            match rustix::event::poll(&mut polled, Some(&wait)) {
                Ok(0) => return Ok(false),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io_error("wait for", &path)(errno.into())),
            }
        }
    }

    /// Whether it was told to stand still.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        Ok(read_number(&self.groups.unified.join("cgroup.freeze"))? != 0)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// A refused write.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        write(&self.groups.unified.join("cgroup.freeze"), "0")
    }

    /// Has the kernel take back what memory it can: page cache, and with `swap` also its own pages, whatever the quota says. Undone by
    /// [`Cgroup::end_reclaim`]. v2: memory.reclaim (5.19); v1: memory.force_empty, which does the same while processes are in it.
    ///
    /// # Errors
    /// A refused write.
    pub fn reclaim(&self, swap: bool) -> Result<(), CgroupError> {
        match &self.groups.legacy {
            Some([_, memory, _, _]) => {
                apply(memory, &[Setting::optional("memory.swappiness", if swap { 100 } else { 0 })])?;
                write(&memory.join("memory.force_empty"), "0")
            }
            None => {
                let unified = &self.groups.unified;
                if swap {
                    apply(unified, &[Setting::optional("memory.swap.max", "max")])?;
                }
                for _ in 0..RECLAIM_ROUNDS_MAX {
                    let current = Kept::open(unified, "memory.current")?.number()?;
                    // Refused (EAGAIN) when less than all was taken back.
                    let _ = write(&unified.join("memory.reclaim"), &current.to_string());
                }
                Ok(())
            }
        }
    }

    /// From now on swap is bounded by the quota again; what is swapped out comes back as it is used.
    ///
    /// # Errors
    /// A refused write.
    pub fn end_reclaim(&self, quota: &Quota) -> Result<(), CgroupError> {
        match &self.groups.legacy {
            Some([_, memory, _, _]) => {
                let swappiness = if quota.swap_bytes == 0 { 0 } else { 60 };
                apply(memory, &[Setting::optional("memory.swappiness", swappiness)])
            }
            None => apply(&self.groups.unified, &v2::memory::swap(quota)),
        }
    }
}

//! Limits of single processes (prlimit(2)) of a container that runs: its quota's open files and processes. New processes inherit them, so
//! that the list is gone through until nobody is left with the old ones.

use std::fs;

use berth_wire::quota::Quota;
use nix::libc;

use super::control::{CgroupError, io_error};
use super::{Cgroup, is_gone};

/// A process may fork while the others are changed: so often is the list read again.
const ROUNDS_MAX: u32 = 100;

impl Cgroup {
    /// Gives every process in it the quota's limits.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_process_limits(&self, quota: &Quota) -> Result<(), CgroupError> {
        let wanted = [(libc::RLIMIT_NOFILE, quota.open_files), (libc::RLIMIT_NPROC, quota.pids.max)];
        for _ in 0..ROUNDS_MAX {
            let mut changed = false;
            for pid in self.processes()? {
                for (resource, limit) in wanted {
                    changed |= set(pid, resource, limit)
                        .map_err(io_error(format!("limit process {pid} in"), &self.groups.unified))?;
                }
            }
            if !changed {
                break;
            }
        }
        Ok(())
    }

    /// The host's pids of its processes.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        let path = self.groups.unified.join("cgroup.procs");
        match fs::read_to_string(&path) {
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            read => {
                let text = read.map_err(io_error("read", &path))?;
                Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
            }
        }
    }
}

/// Sets a process's hard limit, and its soft one unless it chose a lower one for itself; whether that changed anything.
fn set(pid: i32, resource: libc::__rlimit_resource_t, limit: u64) -> std::io::Result<bool> {
    let mut has = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the new limit is absent, the old one is written to a live value of the kernel's layout.
    if unsafe { libc::prlimit(pid, resource, std::ptr::null(), &raw mut has) } < 0 {
        return unless_ended();
    }
    let own = if has.rlim_cur == has.rlim_max { limit } else { has.rlim_cur.min(limit) };
    let wanted = libc::rlimit { rlim_cur: own, rlim_max: limit };
    if (has.rlim_cur, has.rlim_max) == (own, limit) {
        return Ok(false);
    }
    // SAFETY: the new limit is a live value of the kernel's layout; the old one is not asked for.
    if unsafe { libc::prlimit(pid, resource, &raw const wanted, std::ptr::null_mut()) } < 0 {
        return unless_ended();
    }
    Ok(true)
}

/// It ended meanwhile: nothing to change.
fn unless_ended() -> std::io::Result<bool> {
    match std::io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        error => Err(error),
    }
}

//! The limit of single processes (prlimit(2)) of a container that runs: its quota's open files. New processes inherit it, so that the
//! list is gone through until nobody is left with the old one.

use std::fs;
use std::io;

use berth_wire::quota::Quota;
use nix::libc;

use super::control::{CgroupError, io_error};
use super::{Cgroup, is_gone};

/// A process may fork while the others are changed: so often is the list read again.
const ROUNDS_MAX: u32 = 100;

impl Cgroup {
    /// Gives every process in it the quota's limit. An agent without CAP_SYS_RESOURCE can raise none: as at its start, a container then
    /// has less than it may.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_process_limits(&self, quota: &Quota) -> Result<(), CgroupError> {
        for _ in 0..ROUNDS_MAX {
            let mut changed = false;
            for pid in self.processes()? {
                changed |= set(pid, quota.open_files)
                    .map_err(io_error(format!("limit process {pid} in"), &self.groups.unified))?;
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
fn set(pid: i32, limit: u64) -> io::Result<bool> {
    let has = match exchange(pid, None) {
        Err(error) => return unless_ended(error),
        Ok(has) => has,
    };
    let wanted = {
        let own = if has.rlim_cur == has.rlim_max { limit } else { has.rlim_cur.min(limit) };
        libc::rlimit { rlim_cur: own, rlim_max: limit }
    };
    if (has.rlim_cur, has.rlim_max) == (wanted.rlim_cur, wanted.rlim_max) {
        return Ok(false);
    }
    match exchange(pid, Some(wanted)) {
        // Only raising it needs a privilege.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && limit > has.rlim_max => Ok(false),
        Err(error) => unless_ended(error),
        Ok(_) => Ok(true),
    }
}

/// prlimit(2): the limit of open files that a process had, and another in its place if there is one.
fn exchange(pid: i32, new: Option<libc::rlimit>) -> io::Result<libc::rlimit> {
    let mut has = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both are null or live values of the kernel's layout.
    if unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, new, &raw mut has) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(has)
}

/// It ended meanwhile: nothing to change.
fn unless_ended(error: io::Error) -> io::Result<bool> {
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(false) } else { Err(error) }
}

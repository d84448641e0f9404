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
    /// Gives every process in it the quota's limit.
    ///
    /// # Errors
    /// The kernel's refusal; EPERM if the agent lacks CAP_SYS_RESOURCE and a new container would have another limit than these have.
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
    let (soft, hard) = match of_process(pid) {
        Err(error) => return unless_ended(error),
        Ok(has) => has,
    };
    let own = if soft == hard { limit } else { soft.min(limit) };
    if (soft, hard) == (own, limit) {
        return Ok(false);
    }
    let wanted = libc::rlimit { rlim_cur: own, rlim_max: limit };
    // SAFETY: the new limit is a live value of the kernel's layout; the old one is not asked for.
    if unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const wanted, std::ptr::null_mut()) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        // Without the privilege a container is started with no more than the daemons' own limit, which is what it has.
        error if error.raw_os_error() == Some(libc::EPERM) && hard == limit.min(own_hard()?) => Ok(false),
        error => unless_ended(error),
    }
}

fn own_hard() -> io::Result<u64> {
    Ok(of_process(std::process::id().cast_signed())?.1)
}

/// Soft and hard limit as /proc tells them: prlimit(2) wants CAP_SYS_RESOURCE even to look.
fn of_process(pid: i32) -> io::Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let numbers = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut numbers =
        numbers.split_whitespace().map(|n| if n == "unlimited" { Ok(u64::MAX) } else { n.parse() });
    match (numbers.next(), numbers.next()) {
        (Some(Ok(soft)), Some(Ok(hard))) => Ok((soft, hard)),
        _ => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/limits tells no open files")))
        }
    }
}

/// It ended meanwhile: nothing to change.
fn unless_ended(error: io::Error) -> io::Result<bool> {
    if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) { Ok(false) } else { Err(error) }
}

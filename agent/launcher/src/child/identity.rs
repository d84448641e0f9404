//! Who the container's processes are and what they may ask of the kernel: cgroups, limits, ids, capabilities, filter.

use std::ffi::CStr;
use std::os::fd::RawFd;

use crate::kernel::{self, Errno, Result};

/// _LINUX_CAPABILITY_VERSION_3 (capget(2)).
const CAPABILITY_VERSION: u32 = 0x2008_0522;

pub(super) fn join_cgroup(procs: RawFd) -> Result<()> {
    kernel::call!(libc::SYS_write, procs, c"0".as_ptr(), 1).map(drop)
}

/// A write to a file of the caller's own in proc, and in nothing that an image or a container put in its place (CVE-2025-52881). It
/// holds for the next program of this process and of those that it forks.
pub(super) fn label(file: &CStr, text: &CStr) -> Result<()> {
    let proc = kernel::open_inside_exactly(c"/proc", libc::O_PATH | libc::O_DIRECTORY)?;
    let written =
        must_be_proc(proc).and_then(|()| kernel::open_within(proc, file, libc::O_WRONLY)).and_then(|fd| {
            let written = kernel::call!(libc::SYS_write, fd, text.as_ptr(), text.count_bytes());
            kernel::close(fd);
            written.map(drop)
        });
    kernel::close(proc);
    written
}

fn must_be_proc(fd: RawFd) -> Result<()> {
    let kind = kernel::file_system(fd)?;
    if kind == libc::PROC_SUPER_MAGIC { Ok(()) } else { Err(Errno(libc::EXDEV)) }
}

/// All but the user namespace, which is entered later and ends the privilege to enter these.
pub(super) fn enter_container(process: RawFd) -> Result<()> {
    const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    kernel::call!(libc::SYS_setns, process, NAMESPACES).map(drop)
}

/// Does something as this owner with the launcher's capabilities: what is made then belongs to the container's root. On an
/// idmapped mount there is no other way, because there ids that are not mapped can own nothing.
pub(super) fn as_owner<T>(owner: u32, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Both return the former id, whatever happens; changing the user takes file capabilities out of the effective set.
    kernel::call!(libc::SYS_setfsgid, owner)?;
    kernel::call!(libc::SYS_setfsuid, owner)?;
    let done = raise_permitted().and_then(|()| work());
    kernel::call!(libc::SYS_setfsuid, 0)?;
    kernel::call!(libc::SYS_setfsgid, 0)?;
    done
}

/// Makes everything that is permitted effective.
fn raise_permitted() -> Result<()> {
    let header: [u32; 2] = [CAPABILITY_VERSION, 0];
    let mut sets = [0u32; 6];
    kernel::call!(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr())?;
    (sets[0], sets[3]) = (sets[1], sets[4]);
    kernel::call!(libc::SYS_capset, header.as_ptr(), sets.as_ptr()).map(drop)
}

/// Sets soft and hard limit; where the hard one is lower already and may not be raised (a launcher without CAP_SYS_RESOURCE), that one.
pub(super) fn limit(resource: u32, value: u64) -> Result<()> {
    match set_limit(resource, value) {
        Err(Errno(libc::EPERM)) => {
            let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
            let none = std::ptr::null::<libc::rlimit64>();
            kernel::call!(libc::SYS_prlimit64, 0, resource, none, &raw mut now)?;
            set_limit(resource, value.min(now.rlim_max))
        }
        other => other,
    }
}

fn set_limit(resource: u32, value: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: value, rlim_max: value };
    let none = std::ptr::null_mut::<libc::rlimit64>();
    kernel::call!(libc::SYS_prlimit64, 0, resource, &raw const limit, none).map(drop)
}

pub(super) fn become_user(user: u32, group: u32, groups: &[u32]) -> Result<()> {
    kernel::call!(libc::SYS_setgroups, groups.len(), groups.as_ptr())?;
    kernel::call!(libc::SYS_setresgid, group, group, group)?;
    kernel::call!(libc::SYS_setresuid, user, user, user).map(drop)
}

/// Numbers that this kernel has no capability for are refused with EINVAL: that is the end.
pub(super) fn bound(keep: u64) -> Result<()> {
    for number in 0..64u32 {
        if keep & (1 << number) != 0 {
            continue;
        }
        match kernel::call!(libc::SYS_prctl, libc::PR_CAPBSET_DROP, number, 0, 0, 0) {
            Err(Errno(libc::EINVAL)) => return Ok(()),
            other => other?,
        };
    }
    Ok(())
}

pub(super) fn capabilities(keep: u64) -> Result<()> {
    kernel::call!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)?;
    let header: [u32; 2] = [CAPABILITY_VERSION, 0];
    let (low, high) = (keep as u32, (keep >> 32) as u32);
    // Effective, permitted, inheritable: first of capabilities 0 to 31, then of 32 to 63.
    let sets: [u32; 6] = [low, low, 0, high, high, 0];
    kernel::call!(libc::SYS_capset, header.as_ptr(), sets.as_ptr()).map(drop)
}

pub(super) fn no_new_privileges() -> Result<()> {
    kernel::call!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).map(drop)
}

pub(super) fn seccomp(filter: &[libc::sock_filter]) -> Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    kernel::call!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program).map(drop)
}

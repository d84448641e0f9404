//! The last operations: standard streams, descriptors, and the two programs that replace the child, init and the command.

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::Surroundings;
use crate::kernel::{self, Errno, Result};
use crate::mapped::Mapped;
use crate::prepare::Source;

/// Where the init finds the status file.
const STATUS_FILE: RawFd = 3;
/// First number for descriptors that are moved out of the way.
const ASIDE: i32 = 16;

/// Blocks every signal: init takes them one by one with sigtimedwait, and none is lost before it does.
pub(super) fn block_signals() -> Result<()> {
    set_mask(!0)
}

fn set_mask(mask: u64) -> Result<()> {
    let old = std::ptr::null_mut::<u64>();
    kernel::call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, old, 8).map(drop)
}

/// What was ignored or blocked by the launcher is not by the command.
fn reset_signals() -> Result<()> {
    // The kernel's struct sigaction, all of it zero: SIG_DFL. SIGKILL and SIGSTOP are refused, which is as good.
    let default = [0u64; 4];
    for signal in 1..=64 {
        let old = std::ptr::null_mut::<u64>();
        let _ = kernel::call!(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, 8);
    }
    set_mask(0)
}

pub(super) fn streams(sources: [Source; 3]) -> Result<()> {
    for (target, source) in sources.into_iter().enumerate() {
        let from = match source {
            Source::Null => kernel::open_own(c"/dev/null", libc::O_RDWR)?,
            Source::Descriptor(fd) => fd,
        };
        kernel::call!(libc::SYS_dup3, from, target, 0)?;
        if matches!(source, Source::Null) {
            kernel::close(from);
        }
    }
    Ok(())
}

/// Moves descriptors to 3, 4, … in this order and closes all others above. Only those marked stay open across exec.
fn keep_only<const N: usize>(descriptors: [(RawFd, bool); N]) -> Result<()> {
    let mut aside = [0; N];
    for (slot, (fd, _)) in aside.iter_mut().zip(descriptors) {
        *slot = kernel::call!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, ASIDE)? as RawFd;
    }
    for (index, (fd, (_, stays))) in aside.into_iter().zip(descriptors).enumerate() {
        let flags = if stays { 0 } else { libc::O_CLOEXEC };
        kernel::call!(libc::SYS_dup3, fd, STATUS_FILE + index as RawFd, flags)?;
    }
    kernel::call!(libc::SYS_close_range, STATUS_FILE as u32 + N as u32, u32::MAX, 0).map(drop)
}

/// Closes everything above 2 but the report pipe; returns its new number.
pub(super) fn close_all_but(report: RawFd) -> Result<RawFd> {
    keep_only([(report, false)])?;
    Ok(STATUS_FILE)
}

/// Replaces PID 1. Its streams are closed: it writes nothing, and holds no end of the container's output.
pub(super) fn become_init(around: &Surroundings) -> Errno {
    let replaced = keep_only([(around.status, true), (around.init, false), (around.report, false)])
        .and_then(|()| kernel::call!(libc::SYS_close_range, 0, 2, 0))
        .and_then(|_| {
            let argv = [c"init".as_ptr(), std::ptr::null()];
            let envp = [std::ptr::null::<libc::c_char>()];
            let init = STATUS_FILE + 1;
            kernel::call!(
                libc::SYS_execveat,
                init,
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH
            )
        });
    match replaced {
        Ok(_) => Errno(libc::ENOEXEC),
        Err(errno) => errno,
    }
}

/// Changes to a directory of the container. A magic link (/proc/self/fd/N) would lead to whatever a descriptor that was left
/// open shows, on the host too (CVE-2024-21626): none is open here, and none is followed.
pub(super) fn working_directory(path: &CStr) -> Result<()> {
    let directory = kernel::open_inside(path, libc::O_PATH | libc::O_DIRECTORY)?;
    let changed = kernel::call!(libc::SYS_fchdir, directory);
    kernel::close(directory);
    changed.map(drop)
}

/// Executes the first candidate that exists. Only returns to say why none did: "not executable" rather than "not found" if both
/// happened, as a shell does.
pub(super) fn execute(command: &Mapped) -> Errno {
    if let Err(errno) = reset_signals() {
        return errno;
    }
    let mut reason = Errno(libc::ENOENT);
    for candidate in command.candidates() {
        // All three are NUL-terminated arrays or strings inside the mapping, which lives on.
        match kernel::call!(libc::SYS_execve, *candidate, command.argv(), command.envp()) {
            Ok(_) | Err(Errno(libc::ENOENT | libc::ENOTDIR)) => {}
            Err(other) => reason = other,
        }
    }
    reason
}

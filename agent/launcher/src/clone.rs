//! The clone itself: a child in new pid, ipc and uts namespaces, born in its cgroup, with a descriptor for its process.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::child::{self, Failure, Surroundings};
use crate::prepare::Prepared;

/// What clone3 takes (linux/sched.h, struct clone_args of 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child on its way to its programs.
pub struct Cloned {
    /// The host's pid.
    pub pid: u32,
    /// Its process.
    pub pidfd: OwnedFd,
    /// Where it reports a failure; end of file once both programs run.
    pub report: File,
}

/// What the launcher lends to a child.
pub struct Loan<'a> {
    /// The skeleton of mounts.
    pub skeleton: BorrowedFd<'a>,
    /// The sealed init.
    pub init: BorrowedFd<'a>,
    /// The container's status file.
    pub status: BorrowedFd<'a>,
    /// The unified cgroup.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Whose child it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kin {
    /// The caller's.
    Child,
    /// The caller's parent's.
    Sibling,
}

/// Clones a child that carries out the plan.
///
/// # Errors
/// The kernel's refusal.
pub fn clone(prepared: &Prepared, loan: &Loan<'_>, kin: Kin) -> io::Result<Cloned> {
    let (report_read, report_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let around = Surroundings {
        skeleton: loan.skeleton.as_raw_fd(),
        report: report_write.as_raw_fd(),
        status: loan.status.as_raw_fd(),
        init: loan.init.as_raw_fd(),
    };
    let mut pidfd: libc::c_int = -1;
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let mut arguments = CloneArguments {
        flags: (namespaces | libc::CLONE_PIDFD) as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    if kin == Kin::Sibling {
        // It inherits the signal that the caller's own end sends (clone(2), CLONE_PARENT).
        arguments.flags |= libc::CLONE_PARENT as u64;
        arguments.exit_signal = 0;
    }
    if let Some(cgroup) = loan.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork of a process with one thread; the child only makes system calls and never returns.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, std::mem::size_of::<CloneArguments>())
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => child::run(prepared, &around),
        pid => {
            // SAFETY: CLONE_PIDFD made this descriptor for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned { pid: pid as u32, pidfd, report: report_read.into() })
        }
    }
}

/// Clones a child into a running container: its pid namespace and cgroup; the plan enters the rest.
///
/// # Errors
/// ESRCH if the container is ending, or the kernel's refusal.
pub fn clone_inside(
    prepared: &Prepared,
    init: BorrowedFd<'_>,
    own_pid_namespace: BorrowedFd<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    let (report_read, report_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut pidfd: libc::c_int = -1;
    let mut arguments = CloneArguments {
        flags: libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // The launcher itself stays where it is (pid_namespaces(7)): only its next child is born inside.
    enter_pid_namespace(init)?;
    // SAFETY: as in `clone`.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, std::mem::size_of::<CloneArguments>())
    };
    if pid == 0 {
        child::run_inside(prepared, report_write.as_raw_fd())
    }
    let failed = io::Error::last_os_error();
    if enter_pid_namespace(own_pid_namespace).is_err() {
        // Every later container would be born inside this one. The kernel always allows the way back, so this is never seen;
        // containers outlive a launcher that ends.
        std::process::abort();
    }
    match pid {
        // A pid namespace whose init is ending gives no more pids (pid_namespaces(7)).
        -1 if failed.raw_os_error() == Some(libc::ENOMEM) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        -1 => Err(failed),
        pid => {
            // SAFETY: CLONE_PIDFD made this descriptor for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned { pid: pid as u32, pidfd, report: report_read.into() })
        }
    }
}

/// By a pidfd or a namespace's descriptor.
fn enter_pid_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: numbers only.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWPID) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What came through the report pipe.
pub enum Outcome {
    /// Both programs run.
    Running,
    /// An operation failed.
    Failed(Failure),
}

/// Reads the report pipe once it is readable.
pub fn outcome(report: &mut File) -> Outcome {
    let mut bytes = [0; Failure::BYTES];
    match report.read_exact(&mut bytes) {
        Ok(()) => Outcome::Failed(Failure::decode(bytes)),
        Err(_) => Outcome::Running,
    }
}

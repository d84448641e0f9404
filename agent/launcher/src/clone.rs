//! The clone itself: a child in new pid, ipc and uts namespaces, born in its cgroup, with a descriptor for its process.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::child::{self, Failure, Surroundings};
use crate::kernel::{self, CloneArguments, Errno};
use crate::prepare::Prepared;
use crate::shared_memory::{self, Stack};

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

/// Clones a child that carries out the plan.
///
/// # Errors
/// The kernel's refusal.
pub fn clone(prepared: &Prepared, loan: &Loan<'_>) -> io::Result<Cloned> {
    let (report_read, report_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let around = surroundings(loan, report_write.as_fd());
    let mut pidfd = -1;
    let arguments = of_a_container(loan, &mut pidfd);
    // Without CLONE_VM this is a fork of a process with one thread; the child only makes system calls and never returns.
    match kernel::call!(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>())? {
        0 => child::run(prepared, &around),
        pid => Ok(cloned(pid as u32, pidfd, report_read)),
    }
}

/// Clones a sibling that carries out the plan in this process's memory.
///
/// # Errors
/// The kernel's refusal.
///
/// # Safety
/// This process must free nothing of the plan's, and end soon: until the sibling executes its programs, both run in one memory.
pub unsafe fn clone_sibling(prepared: &'static Prepared, loan: &Loan<'_>) -> io::Result<Cloned> {
    let (report_read, report_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Never freed, as the plan itself.
    let child: &'static _ =
        Box::leak(Box::new(Child { prepared, around: surroundings(loan, report_write.as_fd()) }));
    let mut pidfd = -1;
    let mut arguments = of_a_container(loan, &mut pidfd);
    // It inherits the signal that the caller's own end sends (clone(2), CLONE_PARENT).
    arguments.flags |= libc::CLONE_PARENT as u64;
    arguments.exit_signal = 0;
    // SAFETY: what it uses is never freed.
    let pid = unsafe { shared_memory::clone3_onto(&mut arguments, Stack::new()?, begin, &raw const *child) }?;
    Ok(cloned(pid, pidfd, report_read))
}

/// What a sibling begins with.
struct Child {
    prepared: &'static Prepared,
    around: Surroundings,
}

extern "C" fn begin(child: *const Child) -> ! {
    // SAFETY: it is never freed.
    let child = unsafe { &*child };
    child::run(child.prepared, &child.around)
}

fn surroundings(loan: &Loan<'_>, report: BorrowedFd<'_>) -> Surroundings {
    Surroundings {
        skeleton: loan.skeleton.as_raw_fd(),
        report: report.as_raw_fd(),
        status: loan.status.as_raw_fd(),
        init: loan.init.as_raw_fd(),
    }
}

fn of_a_container(loan: &Loan<'_>, pidfd: &mut libc::c_int) -> CloneArguments {
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let mut arguments = CloneArguments {
        flags: (namespaces | libc::CLONE_PIDFD) as u64,
        pidfd: &raw mut *pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    if let Some(cgroup) = loan.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    arguments
}

fn cloned(pid: u32, pidfd: libc::c_int, report: OwnedFd) -> Cloned {
    // SAFETY: CLONE_PIDFD made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Cloned { pid, pidfd, report: report.into() }
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
    // As in `clone`.
    let made = kernel::call!(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>());
    if made == Ok(0) {
        child::run_inside(prepared, report_write.as_raw_fd())
    }
    if enter_pid_namespace(own_pid_namespace).is_err() {
        // Every later container would be born inside this one. The kernel always allows the way back, so this is never seen;
        // containers outlive a launcher that ends.
        std::process::abort();
    }
    match made {
        // A pid namespace whose init is ending gives no more pids (pid_namespaces(7)).
        Err(Errno(libc::ENOMEM)) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        made => Ok(cloned(made? as u32, pidfd, report_read)),
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

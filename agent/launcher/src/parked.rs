//! Parked processes: each waits in the v1 cgroups of a container that does not exist yet, and clones it into them when it is wanted.
//! Writing a process into a v1 cgroup makes the kernel wait until no processor reads its lists any more, some 10 ms; a child is born in
//! its parent's groups for nothing. Whoever asked for it holds the other end of its socket: once that is closed, the process ends.
//!
//! ```text
//! park ──> writes itself into the groups ──> says so ──> waits ── order ──> clones, as the launcher's child ──> ends
//!                                                          └── end of the socket, or of the launcher ──> ends
//! ```

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use berth_wire::launch::{FdIndex, LaunchFailure, Plan};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};

use crate::clone::{self, Cloned, Loan};
use crate::prepare::{Descriptors, Prepared, prepare};
use crate::requests::failure;
use crate::{memory_file, socket};

/// How long an order may take: one clone. Only a kernel that is stuck takes longer, and the launcher must not be with it.
const ORDER_MAX: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What a parked process is to do, once. The numbers are of descriptors beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    plan: FdIndex,
    cgroup: Option<FdIndex>,
    status: FdIndex,
    output: Option<FdIndex>,
}

/// What came of it: the process, with its descriptor and the report pipe beside it, or why there is none.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Cloned(u32),
    Failed(LaunchFailure),
}

/// What the launcher lends to a parked process.
pub struct Lent<'a> {
    /// The skeleton of mounts.
    pub skeleton: BorrowedFd<'a>,
    /// The sealed init.
    pub init: BorrowedFd<'a>,
}

/// Forks a process that writes itself into these groups (their `cgroup.procs`) and waits. Gives the other end of its socket, on which
/// it says once that it is in them, and its descriptor; it has to be reaped.
///
/// # Errors
/// The kernel's refusal.
pub fn park(groups: &[OwnedFd], lent: &Lent<'_>) -> io::Result<[OwnedFd; 2]> {
    let (theirs, ours) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let parent = std::process::id();
    let mut pidfd: libc::c_int = -1;
    let flags = libc::SIGCHLD | libc::CLONE_PIDFD;
    // SAFETY: a plain fork of a process with one thread, so the child may do what any process may; the kernel writes one number.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = i32::from(wait_for_order(parent, &ours, groups, lent).is_err());
            // SAFETY: _exit takes a number; nothing of the launcher's is dropped or flushed here.
            unsafe { libc::_exit(code) }
        }
        // SAFETY: CLONE_PIDFD made this descriptor for us.
        _ => Ok([theirs, unsafe { OwnedFd::from_raw_fd(pidfd) }]),
    }
}

fn wait_for_order(parent: u32, socket: &OwnedFd, groups: &[OwnedFd], lent: &Lent<'_>) -> io::Result<()> {
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if std::os::unix::process::parent_id() != parent {
        return Ok(());
    }
    let kept = [socket.as_raw_fd(), lent.skeleton.as_raw_fd(), lent.init.as_raw_fd()];
    close_all_but(kept.into_iter().chain(groups.iter().map(AsRawFd::as_raw_fd)).collect());
    for group in groups {
        rustix::io::write(group, b"0")?;
    }
    close_all_but(kept.to_vec());
    socket::send(socket, &(), &[])?;
    let Some(received) = socket::receive::<Order>(socket)? else { return Ok(()) };
    let order = received.value.ok_or(io::ErrorKind::InvalidData)?;
    match carry_out(&order, &received.descriptors, lent) {
        Ok(cloned) => {
            let beside = [cloned.pidfd.as_fd(), cloned.report.as_fd()];
            socket::send(socket, &Answer::Cloned(cloned.pid), &beside)
        }
        Err(failure) => socket::send(socket, &Answer::Failed(failure), &[]),
    }
}

/// Nothing of the launcher's own (connections, other containers' output) may stay open in here. The standard streams do: their numbers
/// must not be given to something else.
fn close_all_but(mut kept: Vec<RawFd>) {
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().map(RawFd::cast_unsigned).chain([u32::MAX]) {
        if fd > from {
            // SAFETY: numbers only; what is closed here is not used in this process.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = fd.saturating_add(1);
    }
}

fn carry_out(order: &Order, received: &[OwnedFd], lent: &Lent<'_>) -> Result<Cloned, LaunchFailure> {
    let find = |index: FdIndex| {
        let missing = || failure("find a descriptor of the plan", &io::ErrorKind::NotFound.into());
        received.get(usize::from(index.0)).ok_or_else(missing)
    };
    let plan: Plan = memory_file::read(find(order.plan)?)
        .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
        .map_err(|error| failure("read the plan", &error))?;
    let output = order.output.map(find).transpose()?.map(AsRawFd::as_raw_fd);
    let descriptors = Descriptors { received, output, in_groups: true };
    // The container begins in this process's memory: it is not freed, and this process ends.
    let prepared: &'static Prepared = Box::leak(Box::new(prepare(&plan, &descriptors).map_err(|error| {
        failure(&format!("prepare the plan: {error}"), &io::ErrorKind::InvalidInput.into())
    })?));
    let loan = Loan {
        skeleton: lent.skeleton,
        init: lent.init,
        status: find(order.status)?.as_fd(),
        cgroup: order.cgroup.map(find).transpose()?.map(AsFd::as_fd),
    };
    // SAFETY: nothing of the plan is freed, and all that this process does now is to say so and end.
    unsafe { clone::clone_sibling(prepared, &loan) }.map_err(|error| failure("clone into the cgroup", &error))
}

/// What an order is made of.
pub struct Wanted<'a> {
    /// The plan's number among those that came with the request.
    pub plan: FdIndex,
    /// The unified cgroup's.
    pub cgroup: Option<FdIndex>,
    /// All that came with the request, but the parked process's own socket.
    pub received: &'a [OwnedFd],
    /// The container's status file.
    pub status: BorrowedFd<'a>,
    /// The container's FIFO.
    pub output: Option<BorrowedFd<'a>>,
}

/// Why an order brought no container.
pub enum NoClone {
    /// The process is not there any more, or there are too many descriptors for it: to be cloned without it.
    NotParked,
    /// It was tried and failed.
    Failed(LaunchFailure),
}

/// Gives the order and waits for the clone.
///
/// # Errors
/// Why there is none.
pub fn order(parked: &OwnedFd, wanted: &Wanted<'_>) -> Result<Cloned, NoClone> {
    let mut beside: Vec<BorrowedFd<'_>> = wanted.received.iter().map(AsFd::as_fd).collect();
    let mut pack = |fd| {
        beside.push(fd);
        FdIndex((beside.len() - 1) as u16)
    };
    let status = pack(wanted.status);
    let output = wanted.output.map(pack);
    let order = Order { plan: wanted.plan, cgroup: wanted.cgroup, status, output };
    socket::send(parked, &order, &beside).map_err(|_| NoClone::NotParked)?;
    let stuck = |error: io::Error| NoClone::Failed(failure("wait for the parked process", &error));
    let mut events = [PollFd::new(parked, PollFlags::IN)];
    match poll(&mut events, Some(&ORDER_MAX)) {
        Ok(0) => return Err(stuck(io::ErrorKind::TimedOut.into())),
        polled => drop(polled.map_err(|errno| stuck(errno.into()))?),
    }
    let answer = socket::receive::<Answer>(parked).map_err(stuck)?;
    let Some(answer) = answer else { return Err(stuck(io::ErrorKind::UnexpectedEof.into())) };
    match (answer.value, <[OwnedFd; 2]>::try_from(answer.descriptors)) {
        (Some(Answer::Cloned(pid)), Ok([pidfd, report])) => Ok(Cloned { pid, pidfd, report: report.into() }),
        (Some(Answer::Failed(failure)), _) => Err(NoClone::Failed(failure)),
        _ => Err(stuck(io::ErrorKind::InvalidData.into())),
    }
}

//! What happens between clone and exec: the prepared operations, one by one, without allocating, without returning.
//! Any failure is written to the report pipe as a [`Failure`] and ends the process. How each operation is done: mounts
//! in `root` and `places`, credentials in `identity`, terminals in `terminal`, the last ones in `execute`.

mod execute;
mod identity;
mod places;
mod root;
mod terminal;

use std::os::fd::RawFd;

use crate::kernel::{self, Errno, Result};
use crate::prepare::{Op, Prepared};
use crate::shared_memory::{self, Stack};

/// What the child has besides its operations.
pub struct Surroundings {
    /// The launcher's skeleton of mounts (a mount namespace).
    pub skeleton: RawFd,
    /// Where failures are reported; close-on-exec, so its end tells that both programs run.
    pub report: RawFd,
    /// The file that init writes the exit status to.
    pub status: RawFd,
    /// The sealed init.
    pub init: RawFd,
}

/// How far the child has come.
pub(crate) struct State<'a> {
    pub(crate) around: &'a Surroundings,
    /// The container's root, once the overlay is mounted.
    pub(crate) root: RawFd,
    /// Layers attached.
    pub(crate) layers: usize,
    /// Where failures are reported; it moves when descriptors are closed.
    pub(crate) report: RawFd,
}

/// What a failing child writes, as eight bytes: which operation, counted through steps and main, and errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Index of the operation; steps first, then main. One past the last: the fork or init.
    pub index: u32,
    /// The kernel's reason.
    pub errno: i32,
}

impl Failure {
    /// Its size on the pipe.
    pub const BYTES: usize = 8;

    /// Reads it back.
    pub fn decode(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { index: u32::from_ne_bytes([a, b, c, d]), errno: i32::from_ne_bytes([e, f, g, h]) }
    }

    fn encode(self) -> [u8; Self::BYTES] {
        let ([a, b, c, d], [e, f, g, h]) = (self.index.to_ne_bytes(), self.errno.to_ne_bytes());
        [a, b, c, d, e, f, g, h]
    }
}

/// Carries everything out. The caller is the fresh child of clone3.
pub fn run(prepared: &Prepared, around: &Surroundings) -> ! {
    // It goes on if the launcher dies: the next one finds its record, and what has none the agent finds by its cgroup.
    // Umask 0 so that modes are what the steps say; 022 is what every program expects.
    let _ = kernel::call!(libc::SYS_umask, 0);
    let mut state = State { around, root: -1, layers: 0, report: around.report };
    carry_out(&prepared.steps, &mut state, 0);
    let _ = kernel::call!(libc::SYS_umask, 0o022);
    let first_of_main = prepared.steps.len() as u32;
    let past_the_last = first_of_main + prepared.main.len() as u32;
    // It lives on the stack of this function, which does not return.
    let main = Main { prepared, around, first: first_of_main };
    // Whatever fs.suid_dumpable says: nothing in the container may trace it or read its memory before it has executed init.
    let _ = kernel::call!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    let begun = execute::block_signals().and_then(|()| {
        // SAFETY: `main` is alive until this process has become init, and the memory until the main process has its program.
        unsafe { shared_memory::clone_onto(Stack::new()?, begin_main, &raw const main) }
    });
    if let Err(errno) = begun {
        fail(around.report, past_the_last, errno);
    }
    let errno = execute::become_init(around);
    fail(around.report, past_the_last, errno)
}

/// What the main process begins with.
struct Main<'a> {
    prepared: &'a Prepared,
    around: &'a Surroundings,
    first: u32,
}

extern "C" fn begin_main(main: *const Main<'_>) -> ! {
    // SAFETY: `run` keeps it.
    let Main { prepared, around, first } = unsafe { &*main };
    let mut state = State { around, root: -1, layers: 0, report: around.report };
    carry_out(&prepared.main, &mut state, *first);
    fail(state.report, first + prepared.main.len() as u32, Errno(libc::ENOEXEC))
}

/// Carries out a plan for a command in a running container. The caller is the fresh child of clone3, in the container's pid
/// namespace and cgroup already.
pub fn run_inside(prepared: &Prepared, report: RawFd) -> ! {
    // Until the identity changes (which clears it), it dies with the launcher: nobody else would find it. Others see it while it
    // still runs the launcher's program: they must get at neither that (/proc/PID/exe, CVE-2019-5736) nor its descriptors.
    let _ = kernel::call!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
    let _ = kernel::call!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    let _ = kernel::call!(libc::SYS_umask, 0o022);
    // A plan for a running container mounts nothing: skeleton, init and status file are not there.
    let around = Surroundings { skeleton: -1, report, status: -1, init: -1 };
    let mut state = State { around: &around, root: -1, layers: 0, report };
    carry_out(&prepared.steps, &mut state, 0);
    let first_of_main = prepared.steps.len() as u32;
    carry_out(&prepared.main, &mut state, first_of_main);
    fail(state.report, first_of_main + prepared.main.len() as u32, Errno(libc::ENOEXEC))
}

fn carry_out(ops: &[Op], state: &mut State<'_>, first: u32) {
    for (index, op) in ops.iter().enumerate() {
        if let Err(errno) = one(op, state) {
            fail(state.report, first + index as u32, errno);
        }
    }
}

/// Writes the failure and ends. In PID 2 this lets init end too; in PID 1 it is the end of the container.
fn fail(report: RawFd, index: u32, errno: Errno) -> ! {
    let bytes = Failure { index, errno: errno.0 }.encode();
    let _ = kernel::call!(libc::SYS_write, report, bytes.as_ptr(), bytes.len());
    loop {
        let _ = kernel::call!(libc::SYS_exit_group, 127);
    }
}

fn one(op: &Op, state: &mut State<'_>) -> Result<()> {
    match op {
        Op::JoinLegacyCgroup(Some(procs)) => identity::join_cgroup(*procs),
        Op::JoinLegacyCgroup(None) => Ok(()),
        Op::UnshareCgroup => kernel::call!(libc::SYS_unshare, libc::CLONE_NEWCGROUP).map(drop),
        Op::EnterNetwork(namespace) => {
            kernel::call!(libc::SYS_setns, *namespace, libc::CLONE_NEWNET).map(drop)
        }
        Op::EnterContainer(process) => identity::enter_container(*process),
        Op::Hostname(name) => {
            kernel::call!(libc::SYS_sethostname, name.as_ptr(), name.count_bytes()).map(drop)
        }
        Op::UnshareMounts => root::enter_skeleton(state.around.skeleton),
        Op::Layer { tree, idmap } => root::layer(state, *tree, *idmap),
        Op::Scratch { tree, idmap } => root::scratch(*tree, *idmap),
        Op::Overlay { owner } => root::overlay(state, *owner),
        Op::Directory { path, owner } => places::directory(state.root, path, *owner),
        Op::Proc => places::proc(state.root),
        Op::OomScoreAdjust(value) => places::oom_score_adjust(state.root, value),
        Op::Sysfs => places::sysfs(state.root),
        Op::CgroupFs => places::cgroup(state.root),
        Op::Tmpfs { bytes_max, owner } => places::tmpfs(*bytes_max, *owner),
        Op::Dev { nodes, owner } => places::dev(state.root, nodes, *owner),
        Op::Devpts { tty_group } => places::devpts(state.root, *tty_group),
        Op::Shm => places::shm(state.root),
        Op::Tmp => places::tmp(state.root),
        Op::Bind { tree, idmap, path, owner } => places::bind(state.root, *tree, *idmap, path, *owner),
        Op::Restrict { path, attributes } => places::restrict(state.root, path, *attributes),
        Op::ReadOnly(path) => places::read_only(state.root, path),
        Op::Mask(path) => places::mask(state.root, path),
        Op::PivotRoot => root::pivot(state),
        Op::Label { file, text } => identity::label(file, text),
        Op::Limit { resource, value } => identity::limit(*resource, *value),
        Op::EnterUser(namespace) => kernel::call!(libc::SYS_setns, *namespace, libc::CLONE_NEWUSER).map(drop),
        Op::Identity { user, group, groups } => identity::become_user(*user, *group, groups),
        Op::Bounding(keep) => identity::bound(*keep),
        Op::Capabilities(keep) => identity::capabilities(*keep),
        Op::NoNewPrivileges => identity::no_new_privileges(),
        Op::Seccomp(filter) => identity::seccomp(&filter.0),
        Op::Session => kernel::call!(libc::SYS_setsid).map(drop),
        Op::Streams(sources) => execute::streams(*sources),
        Op::Terminal { socket, rows, columns } => terminal::open(*socket, *rows, *columns),
        Op::CloseDescriptors => {
            state.report = execute::close_all_but(state.report)?;
            Ok(())
        }
        Op::WorkingDirectory(path) => execute::working_directory(path),
        Op::Execute(command) => Err(execute::execute(command)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_must_survive_the_pipe() {
        let failure = Failure { index: 17, errno: libc::EACCES };
        assert_eq!(Failure::decode(failure.encode()), failure);
    }
}

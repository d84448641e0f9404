//! Where faults are put: every system call by which agent and launcher change the machine while they launch, tear down and adopt, and
//! how each can fail on a real one. A row holds for each time that the call is made; the kill is tried in every row. Reads are left
//! out, as dying at one is dying before the next change.

/// While what the fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum During {
    /// A release: one instance is launched, another torn down.
    Change,
    /// The daemon's own start after a kill: it adopts what runs.
    Start,
}

/// One system call of one daemon.
#[derive(Debug)]
pub struct Row {
    /// `agent`, `launcher`, `control` or `edge`.
    pub daemon: &'static str,
    /// Whether its children are meant, too: the steps of a container until its command runs.
    pub children: bool,
    /// When.
    pub during: During,
    /// The call's name.
    pub call: &'static str,
    /// Errors that it is to fail with.
    pub errors: &'static [&'static str],
}

const fn row(
    daemon: &'static str,
    during: During,
    call: &'static str,
    errors: &'static [&'static str],
) -> Row {
    Row { daemon, children: false, during, call, errors }
}

const fn step(call: &'static str, errors: &'static [&'static str]) -> Row {
    Row { daemon: "launcher", children: true, during: During::Change, call, errors }
}

use During::{Change, Start};

/// The table.
pub const ROWS: &[Row] = &[
    // Launch and teardown as the agent does them: spec and memories, control groups, subvolume, veth, plan, launch.
    row("agent", Change, "mkdir", &["ENOSPC", "ENOMEM"]),
    row("agent", Change, "rmdir", &["EIO"]),
    row("agent", Change, "unlink", &["EIO"]),
    row("agent", Change, "rename", &["ENOSPC", "EIO"]),
    row("agent", Change, "openat", &["EMFILE", "EIO"]),
    row("agent", Change, "write", &["ENOSPC", "EIO"]),
    row("agent", Change, "fsync", &["EIO", "ENOSPC"]),
    row("agent", Change, "ioctl", &["ENOSPC", "ENOMEM", "EIO"]),
    row("agent", Change, "socket", &["EMFILE", "ENOMEM"]),
    row("agent", Change, "connect", &["EAGAIN"]),
    row("agent", Change, "sendto", &["ENOMEM"]),
    row("agent", Change, "sendmsg", &["ENOMEM"]),
    row("agent", Change, "recvmsg", &["ENOMEM"]),
    row("agent", Change, "setns", &["ENOMEM"]),
    row("agent", Change, "clone3", &["EAGAIN", "ENOMEM"]),
    row("agent", Change, "open_tree", &["EMFILE", "ENOMEM"]),
    row("agent", Change, "memfd_create", &["EMFILE", "ENOMEM"]),
    // Adoption: pool, network, table, launcher, edge, then the reconciler's first pass.
    row("agent", Start, "mkdir", &["ENOSPC", "EIO"]),
    row("agent", Start, "openat", &["EMFILE", "EIO"]),
    row("agent", Start, "write", &["ENOSPC", "EIO"]),
    row("agent", Start, "ioctl", &["ENOMEM", "EIO"]),
    row("agent", Start, "fsync", &["EIO"]),
    row("agent", Start, "rename", &["ENOSPC"]),
    row("agent", Start, "socket", &["EMFILE"]),
    row("agent", Start, "bind", &["ENOMEM"]),
    row("agent", Start, "connect", &["EAGAIN"]),
    row("agent", Start, "sendto", &["ENOMEM"]),
    row("agent", Start, "sendmsg", &["ENOMEM"]),
    row("agent", Start, "recvmsg", &["ENOMEM"]),
    row("agent", Start, "clone3", &["EAGAIN"]),
    row("agent", Start, "bpf", &["ENOMEM"]),
    // The launcher's own part: the instance's directory and FIFO, the clone, the answer, the end, the log.
    row("launcher", Change, "mkdir", &["ENOSPC", "EIO"]),
    row("launcher", Change, "mknodat", &["ENOSPC"]),
    row("launcher", Change, "chmod", &["EIO"]),
    row("launcher", Change, "openat", &["EMFILE", "ENOSPC"]),
    row("launcher", Change, "write", &["ENOSPC", "EIO"]),
    row("launcher", Change, "rename", &["ENOSPC", "EIO"]),
    row("launcher", Change, "pipe2", &["EMFILE"]),
    row("launcher", Change, "clone", &["EAGAIN", "ENOMEM"]),
    row("launcher", Change, "clone3", &["EAGAIN", "ENOMEM"]),
    row("launcher", Change, "memfd_create", &["EMFILE", "ENOMEM"]),
    row("launcher", Change, "mmap", &["ENOMEM"]),
    row("launcher", Change, "epoll_ctl", &["ENOMEM", "ENOSPC"]),
    row("launcher", Change, "recvmsg", &["ENOMEM"]),
    row("launcher", Change, "sendmsg", &["ENOMEM"]),
    row("launcher", Change, "tee", &["ENOMEM"]),
    row("launcher", Change, "waitid", &[]),
    row("launcher", Change, "unlinkat", &["EIO"]),
    row("launcher", Change, "rmdir", &["EIO"]),
    // Its start: containers and the edge are found again.
    row("launcher", Start, "mkdir", &["ENOSPC"]),
    row("launcher", Start, "openat", &["EMFILE"]),
    row("launcher", Start, "memfd_create", &["EMFILE"]),
    row("launcher", Start, "write", &["ENOSPC"]),
    row("launcher", Start, "socket", &["EMFILE"]),
    row("launcher", Start, "bind", &["ENOMEM"]),
    row("launcher", Start, "epoll_ctl", &["ENOMEM"]),
    row("launcher", Start, "pidfd_open", &["EMFILE"]),
    row("launcher", Start, "pidfd_getfd", &["EMFILE"]),
    row("launcher", Start, "accept4", &["EMFILE"]),
    // The steps of a container, in its own process and in the one that is parked for it.
    step("recvmsg", &["ENOMEM"]),
    step("sendmsg", &["ENOMEM"]),
    step("clone3", &["EAGAIN", "ENOMEM"]),
    step("write", &["ENOSPC", "EIO"]),
    step("unshare", &["ENOMEM", "ENOSPC"]),
    step("setns", &["ENOMEM"]),
    step("sethostname", &[]),
    step("open_tree", &["EMFILE", "ENOMEM"]),
    step("openat2", &["EMFILE", "EAGAIN"]),
    step("mount_setattr", &["ENOMEM"]),
    step("move_mount", &["ENOMEM"]),
    step("fsopen", &["EMFILE", "ENOMEM"]),
    step("fsconfig", &["ENOMEM"]),
    step("fsmount", &["EMFILE", "ENOMEM"]),
    step("mkdirat", &["ENOSPC"]),
    step("mknodat", &["ENOSPC"]),
    step("symlinkat", &["ENOSPC"]),
    step("fchownat", &["EIO"]),
    step("pivot_root", &["ENOMEM"]),
    step("umount2", &["EIO"]),
    step("prlimit64", &[]),
    step("setresuid", &["EAGAIN"]),
    step("setgroups", &["ENOMEM"]),
    step("prctl", &["ENOMEM"]),
    step("capset", &[]),
    step("seccomp", &["ENOMEM"]),
    step("dup3", &["EMFILE"]),
    step("close_range", &["ENOMEM"]),
    step("clone", &["EAGAIN", "ENOMEM"]),
    step("execve", &["ENOMEM", "EMFILE"]),
    step("execveat", &["ENOMEM", "EMFILE"]),
    // Their neighbours: a change that was acknowledged is there after the death.
    row("control", Change, "pwrite64", &[]),
    row("control", Change, "fdatasync", &[]),
    row("control", Change, "rename", &[]),
    row("edge", Change, "rename", &[]),
    row("edge", Change, "openat", &[]),
];

/// What happens at the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL before it.
    Kill,
    /// It is not made and gives this error.
    Fail(&'static str),
}

/// One fault: at the `when`-th time that a thread makes the call.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Where.
    pub row: &'static Row,
    /// What.
    pub action: Action,
    /// The how manieth.
    pub when: u32,
}

impl Point {
    /// As strace takes it after `-e`.
    pub fn fault(&self) -> String {
        let action = match self.action {
            Action::Kill => "signal=KILL".to_owned(),
            Action::Fail(error) => format!("error={error}"),
        };
        format!("inject={}:{action}:when={}", self.row.call, self.when)
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row { daemon, children, during, .. } = self.row;
        let whose = if *children { "'s children" } else { "" };
        write!(f, "{daemon}{whose}, {during:?}: {}", self.fault())
    }
}

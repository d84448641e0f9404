//! The container plan: what the launcher's child does between clone and exec, step by step. Descriptors travel
//! beside the plan and are named by their index, so that no path of the host is resolved by the launcher.

use serde::{Deserialize, Serialize};

/// Which of the descriptors that came with the launch message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FdIndex(pub u16);

/// Most layers of one image: each is one descriptor (the kernel passes at most 253 in one message) and one mount point
/// of the launcher's skeleton. Docker's own limit is 127.
pub const LAYERS_MAX: usize = 127;

/// What one container is made of.
///
/// ```text
/// clone3 (pid, ipc, uts; into the cgroup)
///   └ steps ─── one by one, with the privileges of the launcher until EnterUser ──┐
///                                                        fork ───────────────────┤
///       PID 1: executes the launcher's init from a sealed memfd                   │
///       PID 2: main ─── one by one, ending in Execute ────────────────────────────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Done by the first process; whatever they change, both processes have.
    pub steps: Vec<Step>,
    /// Done by the second process only.
    pub main: Vec<Step>,
}

impl Plan {
    /// The same plan without the steps that `removed` says yes to. It exists for the tests of isolation, which take a
    /// protection out and see the attack succeed.
    pub fn without(mut self, removed: impl Fn(&Step) -> bool) -> Self {
        self.steps.retain(|step| !removed(step));
        self.main.retain(|step| !removed(step));
        self
    }
}

/// One thing that the launcher's child does. All paths are inside the container, start with `/` and are resolved with
/// openat2(RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Joins a v1 cgroup by writing `0` to this open `cgroup.procs`.
    JoinLegacyCgroup {
        /// The open file.
        procs: FdIndex,
    },
    /// A cgroup namespace whose root is the container's own cgroup.
    UnshareCgroup,
    /// Enters the network namespace.
    EnterNetwork {
        /// The namespace.
        namespace: FdIndex,
    },
    /// Enters the mount, ipc, uts, network and cgroup namespaces of a running container; its pid namespace the process is born in.
    EnterContainer {
        /// The pidfd of the container's init.
        process: FdIndex,
    },
    /// Sets the host name of the UTS namespace.
    Hostname {
        /// At most 64 bytes.
        name: String,
    },
    /// Enters the launcher's skeleton of mounts and takes a private copy of it.
    UnshareMounts,
    /// Attaches a detached mount as the next layer, lowest first.
    Layer {
        /// A detached mount (open_tree with OPEN_TREE_CLONE).
        tree: FdIndex,
        /// The user namespace whose mapping on-disk ids are shown with.
        idmap: Option<FdIndex>,
    },
    /// Attaches the detached mount that holds the directories `upper` and `work`.
    Scratch {
        /// A detached mount.
        tree: FdIndex,
        /// As for a layer; written files then have ids from 0 on disk.
        idmap: Option<FdIndex>,
    },
    /// Mounts the overlay of the layers and the scratch.
    Overlay {
        /// The kernel's id of whom it works as.
        owner: u32,
    },
    /// Makes a directory in the root, as this id, unless something is there.
    Directory {
        /// Where.
        path: String,
        /// The kernel's id of the owner.
        owner: u32,
    },
    /// Mounts proc of the container's pid namespace on /proc.
    Proc,
    /// How much sooner than others the kernel ends the container when the whole machine is out of memory
    /// (proc_pid_oom_score_adj(5)); through the proc just mounted, so after [`Step::Proc`], or before [`Step::EnterContainer`].
    OomScoreAdjust {
        /// -1000 to 1000. A launcher without CAP_SYS_RESOURCE can only raise it.
        adjustment: i16,
    },
    /// Mounts sysfs of the container's network namespace on /sys.
    Sysfs,
    /// Mounts the unified cgroup hierarchy on /sys/fs/cgroup.
    CgroupFs,
    /// Makes one tmpfs with the parts `dev`, `shm` and `tmp`: one superblock instead of three.
    Tmpfs {
        /// Its size limit in bytes. What is in it also counts as the container's memory.
        bytes_max: u64,
        /// The kernel's id of the owner.
        owner: u32,
    },
    /// Mounts part `dev` on /dev, with these nodes and the usual symbolic links.
    Dev {
        /// The nodes.
        nodes: Vec<Device>,
        /// The kernel's id of their owner.
        owner: u32,
    },
    /// Mounts a new instance of devpts on /dev/pts.
    Devpts {
        /// The kernel's id of the group `tty`.
        tty_group: u32,
    },
    /// Mounts part `shm` on /dev/shm.
    Shm,
    /// Mounts part `tmp` on /tmp.
    Tmp,
    /// Attaches a detached mount at a path, which is made if nothing is there.
    Bind {
        /// A detached mount.
        tree: FdIndex,
        /// As for a layer.
        idmap: Option<FdIndex>,
        /// Where.
        path: String,
        /// The kernel's id of the owner of what is made.
        owner: u32,
    },
    /// No device nodes work on the mount at this path.
    NoDevices {
        /// A mount point.
        path: String,
    },
    /// No set-user-ID bits or file capabilities work on the mount at this path.
    NoSetuid {
        /// A mount point.
        path: String,
    },
    /// Makes the mount at this path, or the path itself, read-only. A path that is not there is passed over.
    ReadOnly {
        /// Where.
        path: String,
    },
    /// Covers a file or directory with the launcher's own empty one. A path that is not there is passed over.
    Mask {
        /// Where.
        path: String,
    },
    /// Makes the overlay the root and drops everything else.
    PivotRoot,
    /// What the next programs, init's and the command's, run as in the eyes of the security module. Through the container's own proc,
    /// after [`Step::Proc`] or [`Step::EnterContainer`].
    Label {
        /// The label.
        label: SecurityLabel,
    },
    /// Sets a resource limit, soft and hard.
    Limit {
        /// Which.
        resource: Resource,
        /// The value.
        value: u64,
    },
    /// Enters the user namespace: from here on there is no privilege on the host.
    EnterUser {
        /// The namespace, or the pidfd of a process in it.
        namespace: FdIndex,
    },
    /// Becomes this user, with only these groups.
    Identity {
        /// User id inside.
        user: u32,
        /// Group id inside.
        group: u32,
        /// Supplementary groups inside.
        groups: Vec<u32>,
    },
    /// Drops every capability but these from the bounding set.
    Bounding {
        /// Capability numbers to keep.
        keep: Vec<u8>,
    },
    /// Sets the permitted and effective sets to these, and empties the inheritable and ambient ones.
    Capabilities {
        /// Capability numbers.
        keep: Vec<u8>,
    },
    /// Sets no_new_privs.
    NoNewPrivileges,
    /// Installs a seccomp filter.
    Seccomp {
        /// A file that holds the BPF program (struct sock_filter, back to back).
        program: FdIndex,
    },
    /// Starts a session of its own, so that no terminal of the host is the controlling one.
    Session,
    /// Connects 0, 1 and 2.
    Streams {
        /// Standard input.
        stdin: Stream,
        /// Standard output.
        stdout: Stream,
        /// Standard error.
        stderr: Stream,
    },
    /// Opens a new terminal of the container's devpts, makes it the controlling one and connects 0, 1 and 2 to it. Its master is
    /// sent through a socket. Both ends are got by descriptor (TIOCGPTPEER), none by the name /dev/pts/N, which others could swap.
    Terminal {
        /// A socket that the master is sent through, as one descriptor beside one byte.
        socket: FdIndex,
        /// Lines.
        rows: u16,
        /// Characters of a line.
        columns: u16,
    },
    /// Closes every descriptor above 2 that the next program should not have.
    CloseDescriptors,
    /// Changes to a directory; one behind a magic link (/proc/self/fd/N) is refused.
    WorkingDirectory {
        /// Where.
        path: String,
    },
    /// Executes the command.
    Execute {
        /// A file that holds a [`super::Command`].
        command: FdIndex,
    },
}

/// Under which name a security module confines a process; it must know it already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "module", rename_all = "snake_case")]
pub enum SecurityLabel {
    /// A loaded AppArmor profile (aa_change_onexec(3)).
    AppArmor {
        /// Its name.
        profile: String,
    },
}

impl SecurityLabel {
    /// How entering it is named in an error.
    pub fn describe(&self) -> String {
        match self {
            Self::AppArmor { profile } => format!("enter the AppArmor profile {profile}"),
        }
    }
}

/// A resource that setrlimit limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Size of a core dump, in bytes.
    Core,
    /// Open files of one process.
    OpenFiles,
    /// Processes of one user in the container.
    Processes,
    /// Locked memory, in bytes.
    LockedMemory,
    /// Bytes in POSIX message queues.
    MessageQueue,
}

/// A character device that the container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name under /dev.
    pub name: String,
    /// Major number (kernel: admin-guide/devices.txt).
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Where one of the three standard streams leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The container's own /dev/null.
    Null,
    /// The FIFO that the launcher drains into the output file.
    Output,
    /// A descriptor that came with the launch.
    Descriptor(FdIndex),
}

impl Step {
    /// The step in a few words, for an error: what it does, and to what.
    pub fn describe(&self) -> String {
        match self {
            Self::JoinLegacyCgroup { .. } => "join a v1 cgroup".into(),
            Self::UnshareCgroup => "make a cgroup namespace".into(),
            Self::EnterNetwork { .. } => "enter the network namespace".into(),
            Self::EnterContainer { .. } => "enter the container's namespaces".into(),
            Self::Hostname { name } => format!("set the host name {name:?}"),
            Self::UnshareMounts => "make a mount namespace".into(),
            Self::Layer { .. } => "attach a layer".into(),
            Self::Scratch { .. } => "attach the writable directory".into(),
            Self::Overlay { .. } => "mount the overlay root".into(),
            Self::Directory { path, .. } => format!("make the directory {path}"),
            Self::Proc => "mount proc on /proc".into(),
            Self::OomScoreAdjust { adjustment } => format!("set oom_score_adj to {adjustment}"),
            Self::Sysfs => "mount sysfs on /sys".into(),
            Self::CgroupFs => "mount cgroup2 on /sys/fs/cgroup".into(),
            Self::Tmpfs { .. } => "make a tmpfs".into(),
            Self::Dev { .. } => "mount /dev".into(),
            Self::Devpts { .. } => "mount devpts on /dev/pts".into(),
            Self::Shm => "mount /dev/shm".into(),
            Self::Tmp => "mount /tmp".into(),
            Self::Bind { path, .. } => format!("bind {path}"),
            Self::NoDevices { path } => format!("forbid device nodes on {path}"),
            Self::NoSetuid { path } => format!("forbid set-user-ID on {path}"),
            Self::ReadOnly { path } => format!("make {path} read-only"),
            Self::Mask { path } => format!("mask {path}"),
            Self::PivotRoot => "pivot into the root".into(),
            Self::Label { label } => label.describe(),
            Self::Limit { resource, value } => format!("limit {resource:?} to {value}"),
            Self::EnterUser { .. } => "enter the user namespace".into(),
            Self::Identity { user, group, .. } => format!("become user {user}, group {group}"),
            Self::Bounding { .. } => "drop the capability bounding set".into(),
            Self::Capabilities { .. } => "drop capabilities".into(),
            Self::NoNewPrivileges => "set no_new_privs".into(),
            Self::Seccomp { .. } => "install the seccomp filter".into(),
            Self::Session => "start a session".into(),
            Self::Streams { .. } => "connect the standard streams".into(),
            Self::Terminal { .. } => "open a terminal".into(),
            Self::CloseDescriptors => "close descriptors".into(),
            Self::WorkingDirectory { path } => format!("change to {path}"),
            Self::Execute { .. } => "execute the command".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_must_survive_its_encoding() {
        let plan = Plan {
            steps: vec![
                Step::Layer { tree: FdIndex(3), idmap: Some(FdIndex(0)) },
                Step::Mask { path: "/proc/kcore".into() },
            ],
            main: vec![Step::Streams {
                stdin: Stream::Null,
                stdout: Stream::Output,
                stderr: Stream::Descriptor(FdIndex(7)),
            }],
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn a_removed_step_must_be_the_only_one_missing() {
        let plan = Plan { steps: vec![Step::PivotRoot, Step::NoNewPrivileges], main: vec![Step::Session] };
        let rest = plan.without(|step| matches!(step, Step::NoNewPrivileges));
        assert_eq!(rest, Plan { steps: vec![Step::PivotRoot], main: vec![Step::Session] });
    }
}

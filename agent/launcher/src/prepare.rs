//! Turns a plan into what the child can carry out without allocating: C strings, raw descriptors, bit masks. All that can
//! be wrong with a plan's form is found here, before the clone. What the operations do is in `child/`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use berth_wire::launch::{FdIndex, Plan, Resource, SecurityLabel, Step, Stream};

use crate::mapped::Mapped;

/// A plan that cannot be carried out as it is.
#[derive(Debug, thiserror::Error)]
pub enum BadPlan {
    /// It names a descriptor that did not come along.
    #[error("the plan names descriptor {0}, but only {1} came with it")]
    Descriptor(u16, usize),
    /// A path that is not absolute, or has `..` or NUL in it.
    #[error("the plan names the path {0:?}; it must be absolute, without .. and NUL")]
    Path(String),
    /// What it executes is malformed.
    #[error("the command: {0}")]
    Command(std::io::Error),
    /// The last step must execute something.
    #[error("the plan does not end in execute")]
    NoExecute,
}

/// A seccomp filter as the kernel takes it.
pub struct Filter(pub Vec<libc::sock_filter>);

/// One operation of the child. The names are those of [`Step`].
#[allow(missing_docs, reason = "each is described at the step of the same name")]
pub enum Op {
    JoinLegacyCgroup(Option<RawFd>),
    UnshareCgroup,
    EnterNetwork(RawFd),
    EnterContainer(RawFd),
    Hostname(CString),
    UnshareMounts,
    Layer { tree: RawFd, idmap: Option<RawFd> },
    Scratch { tree: RawFd, idmap: Option<RawFd> },
    Overlay { owner: u32 },
    Directory { path: CString, owner: u32 },
    Proc,
    OomScoreAdjust(CString),
    Sysfs,
    CgroupFs,
    Tmpfs { bytes_max: u64, owner: u32 },
    Dev { nodes: Vec<(CString, u32, u32)>, owner: u32 },
    Devpts { tty_group: u32 },
    Shm,
    Tmp,
    Bind { tree: RawFd, idmap: Option<RawFd>, path: CString, owner: u32 },
    Restrict { path: CString, attributes: u64 },
    ReadOnly(CString),
    Mask(CString),
    PivotRoot,
    Label { file: &'static CStr, text: CString },
    Limit { resource: u32, value: u64 },
    EnterUser(RawFd),
    Identity { user: u32, group: u32, groups: Vec<u32> },
    Bounding(u64),
    Capabilities(u64),
    NoNewPrivileges,
    Seccomp(Filter),
    Session,
    Streams([Source; 3]),
    Terminal { socket: RawFd, rows: u16, columns: u16 },
    CloseDescriptors,
    WorkingDirectory(CString),
    Execute(Mapped),
}

/// Where a standard stream leads.
#[derive(Clone, Copy)]
pub enum Source {
    /// /dev/null of the container.
    Null,
    /// A descriptor.
    Descriptor(RawFd),
}

/// A plan ready for the child.
pub struct Prepared {
    /// For the first process.
    pub steps: Vec<Op>,
    /// For the second.
    pub main: Vec<Op>,
}

/// What the plan's indices refer to.
pub struct Descriptors<'a> {
    /// Those that came with the message.
    pub received: &'a [OwnedFd],
    /// The container's FIFO; /dev/null takes its place where there is none.
    pub output: Option<RawFd>,
    /// Whether the child is born in its v1 cgroups: then there is none to join.
    pub in_groups: bool,
}

/// Prepares a plan.
///
/// # Errors
/// What is wrong with its form.
pub fn prepare(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<Prepared, BadPlan> {
    if !matches!(plan.main.last(), Some(Step::Execute { .. })) {
        return Err(BadPlan::NoExecute);
    }
    Ok(Prepared {
        steps: plan.steps.iter().map(|step| op(step, descriptors)).collect::<Result<_, _>>()?,
        main: plan.main.iter().map(|step| op(step, descriptors)).collect::<Result<_, _>>()?,
    })
}

impl Descriptors<'_> {
    fn raw(&self, index: FdIndex) -> Result<RawFd, BadPlan> {
        self.received
            .get(usize::from(index.0))
            .map(AsRawFd::as_raw_fd)
            .ok_or(BadPlan::Descriptor(index.0, self.received.len()))
    }

    fn optional(&self, index: Option<FdIndex>) -> Result<Option<RawFd>, BadPlan> {
        index.map(|index| self.raw(index)).transpose()
    }

    fn source(&self, stream: Stream) -> Result<Source, BadPlan> {
        Ok(match stream {
            Stream::Null => Source::Null,
            Stream::Output => self.output.map_or(Source::Null, Source::Descriptor),
            Stream::Descriptor(index) => Source::Descriptor(self.raw(index)?),
        })
    }

    fn command(&self, index: FdIndex) -> Result<Mapped, BadPlan> {
        let bad = || BadPlan::Descriptor(index.0, self.received.len());
        let fd = self.received.get(usize::from(index.0)).ok_or_else(bad)?;
        Mapped::new(fd).map_err(BadPlan::Command)
    }

    /// The filter is in a memfd, back to back.
    fn filter(&self, index: FdIndex) -> Result<Filter, BadPlan> {
        let bad = || BadPlan::Descriptor(index.0, self.received.len());
        let fd = self.received.get(usize::from(index.0)).ok_or_else(bad)?;
        let bytes = crate::memory_file::read(fd).map_err(|_| bad())?;
        let instruction = |b: &[u8]| libc::sock_filter {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        };
        Ok(Filter(bytes.chunks_exact(8).map(instruction).collect()))
    }
}

/// An absolute path as openat2 takes it: relative to the root that it is resolved in.
fn path(text: &str) -> Result<CString, BadPlan> {
    let bad = || BadPlan::Path(text.to_owned());
    let relative = text.strip_prefix('/').ok_or_else(bad)?.trim_matches('/');
    if relative.split('/').any(|part| part == "..") {
        return Err(bad());
    }
    CString::new(if relative.is_empty() { "." } else { relative }).map_err(|_| bad())
}

fn text(text: &str) -> Result<CString, BadPlan> {
    CString::new(text).map_err(|_| BadPlan::Path(text.to_owned()))
}

fn mask(capabilities: &[u8]) -> u64 {
    capabilities.iter().filter(|number| **number < 64).fold(0, |mask, number| mask | 1 << number)
}

fn resource(resource: Resource) -> u32 {
    match resource {
        Resource::Core => libc::RLIMIT_CORE,
        Resource::OpenFiles => libc::RLIMIT_NOFILE,
        Resource::Processes => libc::RLIMIT_NPROC,
        Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        Resource::MessageQueue => libc::RLIMIT_MSGQUEUE,
    }
}

/// Which file of proc takes it, and how it is written there.
fn label(label: &SecurityLabel) -> Result<Op, BadPlan> {
    Ok(match label {
        SecurityLabel::AppArmor { profile } => {
            Op::Label { file: c"self/attr/apparmor/exec", text: text(&format!("exec {profile}"))? }
        }
    })
}

fn op(step: &Step, fds: &Descriptors<'_>) -> Result<Op, BadPlan> {
    use crate::kernel::{ATTR_NODEV, ATTR_NOSUID};
    Ok(match step {
        Step::JoinLegacyCgroup { procs } => {
            Op::JoinLegacyCgroup(Some(fds.raw(*procs)?).filter(|_| !fds.in_groups))
        }
        Step::UnshareCgroup => Op::UnshareCgroup,
        Step::EnterNetwork { namespace } => Op::EnterNetwork(fds.raw(*namespace)?),
        Step::EnterContainer { process } => Op::EnterContainer(fds.raw(*process)?),
        Step::Hostname { name } => Op::Hostname(text(name)?),
        Step::UnshareMounts => Op::UnshareMounts,
        Step::Layer { tree, idmap } => Op::Layer { tree: fds.raw(*tree)?, idmap: fds.optional(*idmap)? },
        Step::Scratch { tree, idmap } => Op::Scratch { tree: fds.raw(*tree)?, idmap: fds.optional(*idmap)? },
        Step::Overlay { owner } => Op::Overlay { owner: *owner },
        Step::Directory { path: at, owner } => Op::Directory { path: path(at)?, owner: *owner },
        Step::Proc => Op::Proc,
        Step::OomScoreAdjust { adjustment } => Op::OomScoreAdjust(text(&adjustment.to_string())?),
        Step::Sysfs => Op::Sysfs,
        Step::CgroupFs => Op::CgroupFs,
        Step::Tmpfs { bytes_max, owner } => Op::Tmpfs { bytes_max: *bytes_max, owner: *owner },
        Step::Dev { nodes, owner } => Op::Dev {
            owner: *owner,
            nodes: nodes.iter().map(|n| Ok((text(&n.name)?, n.major, n.minor))).collect::<Result<_, _>>()?,
        },
        Step::Devpts { tty_group } => Op::Devpts { tty_group: *tty_group },
        Step::Shm => Op::Shm,
        Step::Tmp => Op::Tmp,
        Step::Bind { tree, idmap, path: at, owner } => {
            Op::Bind { tree: fds.raw(*tree)?, idmap: fds.optional(*idmap)?, path: path(at)?, owner: *owner }
        }
        Step::NoDevices { path: at } => Op::Restrict { path: path(at)?, attributes: ATTR_NODEV },
        Step::NoSetuid { path: at } => Op::Restrict { path: path(at)?, attributes: ATTR_NOSUID },
        Step::ReadOnly { path: at } => Op::ReadOnly(path(at)?),
        Step::Mask { path: at } => Op::Mask(path(at)?),
        Step::PivotRoot => Op::PivotRoot,
        Step::Label { label } => self::label(label)?,
        Step::Limit { resource: which, value } => Op::Limit { resource: resource(*which), value: *value },
        Step::EnterUser { namespace } => Op::EnterUser(fds.raw(*namespace)?),
        Step::Identity { user, group, groups } => {
            Op::Identity { user: *user, group: *group, groups: groups.clone() }
        }
        Step::Bounding { keep } => Op::Bounding(mask(keep)),
        Step::Capabilities { keep } => Op::Capabilities(mask(keep)),
        Step::NoNewPrivileges => Op::NoNewPrivileges,
        Step::Seccomp { program } => Op::Seccomp(fds.filter(*program)?),
        Step::Session => Op::Session,
        Step::Streams { stdin, stdout, stderr } => {
            Op::Streams([fds.source(*stdin)?, fds.source(*stdout)?, fds.source(*stderr)?])
        }
        Step::Terminal { socket, rows, columns } => {
            Op::Terminal { socket: fds.raw(*socket)?, rows: *rows, columns: *columns }
        }
        Step::CloseDescriptors => Op::CloseDescriptors,
        Step::WorkingDirectory { path } => Op::WorkingDirectory(text(path)?),
        Step::Execute { command } => Op::Execute(fds.command(*command)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_climb_must_be_refused() {
        for bad in ["proc", "/a/../b", "", "/a\0"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
        assert_eq!(path("/").unwrap().as_c_str(), c".");
        assert_eq!(path("/proc/kcore").unwrap().as_c_str(), c"proc/kcore");
    }

    #[test]
    fn a_descriptor_that_did_not_come_along_must_be_refused() {
        let plan = Plan { steps: vec![], main: vec![Step::Execute { command: FdIndex(3) }] };
        let none = Descriptors { received: &[], output: None, in_groups: false };
        assert!(matches!(prepare(&plan, &none), Err(BadPlan::Descriptor(3, 0))));
    }

    #[test]
    fn a_plan_without_execute_must_be_refused() {
        let plan = Plan { steps: vec![], main: vec![Step::Session] };
        let none = Descriptors { received: &[], output: None, in_groups: false };
        assert!(matches!(prepare(&plan, &none), Err(BadPlan::NoExecute)));
    }
}

//! Which hierarchies the machine has mounted, and where in them the parent group belongs.

use std::fs;
use std::path::{Path, PathBuf};

use super::control::{CgroupError, io_error, write};
use super::{v1, v2};

/// Where groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// The directory in the v2 mount under which the parent group goes.
    pub unified: PathBuf,
    /// Mount points of v1's cpu, memory, pids and blkio (in this order), or none on pure v2.
    pub legacy: Option<[PathBuf; 4]>,
    /// Mount point of v1's devices controller, if there is one.
    pub legacy_devices: Option<PathBuf>,
}

impl Hierarchy {
    /// What `/proc/self/mountinfo` says; `base` is where the parent group goes on pure v2, relative to the mount.
    pub(super) fn find(base: Option<&Path>) -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = parse(&fs::read_to_string(path).map_err(io_error("read", path))?);
        let unified = mounts
            .iter()
            .find(|mount| mount.kind == "cgroup2")
            .map(|mount| mount.point.clone())
            .ok_or(CgroupError::NoController("unified (cgroup2)"))?;
        let v1_point = |controller: &str| {
            let has =
                |mount: &&Mount| mount.kind == "cgroup" && mount.options.split(',').any(|o| o == controller);
            mounts.iter().find(has).map(|mount| mount.point.clone())
        };
        let legacy_devices = v1_point("devices");
        let controllers = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
        if v2::CONTROLLERS.iter().all(|wanted| controllers.split_whitespace().any(|has| has == *wanted)) {
            let base = match base {
                Some(base) => existing(unified.join(base))?,
                None => delegated(&unified).unwrap_or(unified),
            };
            return Ok(Self { unified: base, legacy: None, legacy_devices });
        }
        let mut legacy = v1::CONTROLLERS.map(|name| (name, v1_point(name)));
        if let Some((name, _)) = legacy.iter().find(|(_, point)| point.is_none()) {
            return Err(CgroupError::NoController(name));
        }
        let legacy = std::array::from_fn(|i| legacy[i].1.take().unwrap_or_default());
        Ok(Self { unified, legacy: Some(legacy), legacy_devices })
    }

    /// Lets children of the base have controllers (pure v2 only). A base with processes of its own may not, so a
    /// delegated one's processes (the agent itself) are moved into its child `agent` first.
    pub(super) fn enable_controllers(&self, group: &Path) -> Result<(), CgroupError> {
        let wanted: Vec<String> = v2::CONTROLLERS.iter().map(|name| format!("+{name}")).collect();
        write(&group.join("cgroup.subtree_control"), &wanted.join(" "))
    }

    /// Moves a base's own processes into its child `agent`; [`give_back`] undoes it.
    pub(super) fn make_way(&self) -> Result<(), CgroupError> {
        let base = &self.unified;
        // The hierarchy's root may have both.
        if !base.join("cgroup.type").exists() || processes(base)?.is_empty() {
            return Ok(());
        }
        let agent = base.join(AGENT);
        super::make_dir(&agent)?;
        move_processes(base, &agent)
    }
}

/// The child of a delegated base for the base's own processes.
const AGENT: &str = "agent";

/// Undoes [`Hierarchy::make_way`]: the base has its processes to itself again. While another installation has groups
/// there it stays as it is, because the kernel refuses to take the controllers from them.
pub(super) fn give_back(base: &Path) -> Result<(), CgroupError> {
    let agent = base.join(AGENT);
    if !base.join("cgroup.type").exists() || !agent.exists() {
        return Ok(());
    }
    let unwanted = v2::CONTROLLERS.map(|name| format!("-{name}")).join(" ");
    match write(&base.join("cgroup.subtree_control"), &unwanted) {
        Err(CgroupError::Io { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => return Ok(()),
        done => done?,
    }
    move_processes(&agent, base)?;
    super::remove_all(std::iter::once(agent.as_path()))
}

/// A process may fork while it is moved: so often is the list read again.
const MOVE_ROUNDS_MAX: u32 = 100;

fn move_processes(from: &Path, to: &Path) -> Result<(), CgroupError> {
    for _ in 0..MOVE_ROUNDS_MAX {
        let pids = processes(from)?;
        if pids.is_empty() {
            break;
        }
        for pid in pids.lines() {
            match write(&to.join("cgroup.procs"), pid) {
                // It ended meanwhile.
                Err(CgroupError::Io { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                done => done?,
            }
        }
    }
    Ok(())
}

fn processes(group: &Path) -> Result<String, CgroupError> {
    let procs = group.join("cgroup.procs");
    fs::read_to_string(&procs).map_err(io_error("read", &procs))
}

fn existing(group: PathBuf) -> Result<PathBuf, CgroupError> {
    let procs = group.join("cgroup.procs");
    fs::metadata(&procs).map_err(io_error("find", &procs))?;
    Ok(group)
}

/// The agent's own group, if systemd delegated it (`Delegate=yes` sets the extended attribute; CGROUP_DELEGATION.md).
/// One level up if the agent has already moved itself into `agent`.
fn delegated(mount: &Path) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = mount.join(own);
    let group = if group.ends_with(AGENT) { group.parent()?.to_owned() } else { group };
    let mut value = [0; 8];
    ["trusted.delegate", "user.delegate"]
        .iter()
        .any(|name| matches!(rustix::fs::getxattr(&group, *name, &mut value[..]), Ok(1) if value[0] == b'1'))
        .then_some(group)
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    options: String,
}

/// The cgroup mounts (proc_pid_mountinfo(5)) whose root is the hierarchy's root.
fn parse(mountinfo: &str) -> Vec<Mount> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(3);
            let (root, point) = (before.next()?, before.next()?);
            let mut after = after.split(' ');
            let (kind, options) = (after.next()?, after.nth(1)?);
            (root == "/" && kind.starts_with("cgroup")).then(|| Mount {
                point: PathBuf::from(point),
                kind: kind.to_owned(),
                options: options.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_both_versions_must_be_told_apart() {
        let text = "30 24 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             32 24 0:28 /docker/x /mnt rw - cgroup cgroup rw,memory\n\
             33 24 0:29 / / rw - ext4 /dev/vda rw\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].options, "rw,cpu,cpuacct");
        assert_eq!(
            (mounts[1].kind.as_str(), mounts[1].point.as_path()),
            ("cgroup2", Path::new("/sys/fs/cgroup/unified"))
        );
    }
}

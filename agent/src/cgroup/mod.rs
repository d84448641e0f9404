//! Control groups: one set of groups per container, in which the kernel enforces its cpu, memory and pids quota and
//! its device rule, and from which its use is sampled. The only module that knows whether the machine is pure v2 or hybrid
//! (v1 controllers beside a v2 tree without controllers).
//!
//! ```text
//! pure v2                      hybrid
//! BASE/berth-ID      rule      unified/berth-ID      rule      cpu,memory,pids,blkio/berth-ID
//!   └─ INSTANCE      limits      └─ INSTANCE  kill, populated    └─ INSTANCE     limits
//! ```
//! A container's groups are used once and never recycled: a counter above 0 is its own. Calls are short writes to
//! cgroupfs (up to tens of milliseconds on v1) and synchronous. Starting processes in a group is the launcher's business.

mod control;
mod device_rule;
mod enforced;
mod group;
mod hierarchy;
mod idle;
mod limits;
mod refused;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use berth_wire::id::InstanceId;
use berth_wire::quota::Quota;

pub use control::CgroupError;
use control::{apply, io_error};
pub use enforced::unenforced;
use group::Groups;
pub use group::{Cgroup, CgroupHandles, CgroupSample, REMOVE_WAIT_MS_MAX};
use hierarchy::Hierarchy;
pub use refused::Refused;

use crate::installation::Installation;

/// CFS bandwidth period: the kernel's default. Longer ones make a throttled request wait longer.
const PERIOD_US: u64 = 100_000;

/// Microseconds of CPU per period.
fn bandwidth_us(quota: &Quota) -> u64 {
    quota.cpu_millis.max * PERIOD_US / 1_000
}

/// Microseconds of CPU that may be made up for in one period.
fn burst_us(quota: &Quota) -> u64 {
    quota.cpu_burst_millis * PERIOD_US / 1_000
}

/// The block device whose use is throttled and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoDevice {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl std::fmt::Display for IoDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Which versions of control groups a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Pure v2.
    Unified,
    /// v1 controllers beside a v2 tree without.
    Hybrid,
}

/// What this machine has.
///
/// # Errors
/// A controller is missing.
pub fn mode() -> Result<Mode, CgroupError> {
    Ok(if Hierarchy::find(None)?.legacy.is_some() { Mode::Hybrid } else { Mode::Unified })
}

/// All containers' groups of one installation.
#[derive(Debug, Clone)]
pub struct Cgroups {
    /// The parent in the unified tree.
    unified: PathBuf,
    /// The parents in v1's cpu, memory, pids and blkio hierarchies; none on pure v2.
    legacy: Option<[PathBuf; 4]>,
    /// The v1 devices parent, used only where the kernel refused the BPF program.
    legacy_devices: Option<PathBuf>,
    /// What containers' files are on, once that is known.
    io: Arc<OnceLock<IoDevice>>,
}

impl Cgroups {
    /// Makes the parent groups with the device rule on them; those that exist are taken over.
    ///
    /// # Errors
    /// A missing controller or a refused write.
    pub fn open(installation: &Installation) -> Result<Self, CgroupError> {
        Self::open_in(installation, None)
    }

    /// [`Self::open`] with the group, relative to the v2 mount, that a service manager gave for containers, so that
    /// the daemons can be restarted beside them. A process that it has is moved into a child (cgroups(7): a group with
    /// controllers for its children has no process). Means nothing on a hybrid, where no manager delegates controllers.
    ///
    /// # Errors
    /// As [`Self::open`]; or the group is not there.
    pub fn open_in(installation: &Installation, base: Option<&Path>) -> Result<Self, CgroupError> {
        let hierarchy = Hierarchy::find(base)?;
        let name = installation.cgroup_parent();
        let unified = hierarchy.unified.join(&name);
        make_dir(&unified)?;
        let legacy = hierarchy.legacy.as_ref().map(|mounts| mounts.each_ref().map(|mount| mount.join(&name)));
        match &legacy {
            Some(parents) => parents.iter().try_for_each(|parent| make_dir(parent))?,
            None => {
                hierarchy.make_way()?;
                hierarchy.enable_controllers(&hierarchy.unified)?;
                hierarchy.enable_controllers(&unified)?;
                apply(&unified, &v2::memory::parent_limits())?;
            }
        }
        let mut legacy_devices = None;
        if let Err(refused) = device_rule::attach(&unified) {
            let parent = hierarchy.legacy_devices.as_ref().ok_or(refused)?.join(&name);
            make_dir(&parent)?;
            device_rule::set_legacy(&parent)?;
            legacy_devices = Some(parent);
        }
        Ok(Self { unified, legacy, legacy_devices, io: Arc::default() })
    }

    /// From now on, quotas that are set throttle this device, and samples count it. To be called once, before containers are made.
    pub fn throttle(&self, device: IoDevice) {
        // The pool has one device as long as the agent runs.
        let _ = self.io.set(device);
    }

    /// Whether the machine is pure v2 (the whole container dies as one in an OOM, floors protect).
    pub fn is_unified(&self) -> bool {
        self.legacy.is_none()
    }

    fn group(&self, id: InstanceId) -> Cgroup {
        let name = id.to_string();
        Groups::named(
            self.unified.join(&name),
            self.legacy.as_ref().map(|parents| parents.each_ref().map(|parent| parent.join(&name))),
            self.legacy_devices.clone(),
            self.io.clone(),
        )
    }

    /// Makes a container's groups with its quota set; groups that exist are taken over.
    ///
    /// # Errors
    /// A refused write; what was made is removed again.
    pub fn create(&self, id: InstanceId, quota: &Quota) -> Result<Cgroup, CgroupError> {
        let group = self.group(id);
        // The unified group first and last to go: `list` finds by it what a crash left half-made.
        let made = group.own_dirs().try_for_each(make_dir).and_then(|()| group.set_quota(quota));
        if let Err(error) = made {
            // The first error is the one to tell; a group that cannot be removed stays in `list`.
            let _ = group.remove();
            return Err(error);
        }
        Ok(group)
    }

    /// Makes what can be made before the container has its name, to be handed over to it: v1's groups, which the kernel can rename,
    /// with this quota set. Gives what puts a process into them (see [`CgroupHandles`]). On pure v2 that is nothing.
    ///
    /// # Errors
    /// A refused write; what was made is removed again.
    pub fn make_ahead(&self, id: InstanceId, quota: &Quota) -> Result<Vec<OwnedFd>, CgroupError> {
        if self.is_unified() {
            return Ok(Vec::new());
        }
        let group = self.group(id);
        let made = group.legacy_dirs().try_for_each(make_dir).and_then(|()| group.set_quota(quota));
        let made = made.and_then(|()| group.legacy_handles());
        if made.is_err() {
            // The first error is the one to tell; a group that cannot be removed stays in `list`.
            let _ = group.remove();
        }
        made
    }

    /// Makes a container's groups from those made ahead under another id with another quota.
    ///
    /// # Errors
    /// A refused write; some groups may have one name then, some the other.
    pub fn hand_over(
        &self,
        (from, set): (InstanceId, &Quota),
        (to, quota): (InstanceId, &Quota),
    ) -> Result<Cgroup, CgroupError> {
        let (ahead, group) = (self.group(from), self.group(to));
        // First, as in `create`.
        make_dir(&group.groups.unified)?;
        for (old, new) in ahead.legacy_dirs().zip(group.legacy_dirs()) {
            fs::rename(old, new).map_err(io_error("rename", old))?;
        }
        if self.is_unified() || set != quota {
            group.set_quota(quota)?;
        }
        Ok(group)
    }

    /// An existing container's groups.
    ///
    /// # Errors
    /// None at present: a half-made group shows when it is used.
    pub fn get(&self, id: InstanceId) -> Result<Option<Cgroup>, CgroupError> {
        let group = self.group(id);
        Ok(group.exists().then_some(group))
    }

    /// Every container that has a group, half-made ones included.
    ///
    /// # Errors
    /// An unreadable parent.
    pub fn list(&self) -> Result<Vec<InstanceId>, CgroupError> {
        let parents = std::iter::once(&self.unified).chain(self.legacy.iter().flatten());
        let mut ids = Vec::new();
        for parent in parents {
            for entry in fs::read_dir(parent).map_err(io_error("list", parent))? {
                let entry = entry.map_err(io_error("list", parent))?;
                ids.extend(entry.file_name().to_str().and_then(|name| name.parse::<InstanceId>().ok()));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Removes the (empty) parent groups, and the device rule with them; a delegated base becomes what it was. Idempotent.
    ///
    /// # Errors
    /// A parent that still has containers.
    pub fn close_down(&self) -> Result<(), CgroupError> {
        // Also what an earlier start made that could not attach the device rule, as this one could.
        let devices = Hierarchy::find(None)?.legacy_devices.zip(self.unified.file_name());
        let devices = devices.map(|(mount, name)| mount.join(name));
        let parents = self.legacy.iter().flatten().chain(&devices).chain([&self.unified]);
        remove_all(parents.map(PathBuf::as_path))?;
        match self.unified.parent() {
            Some(base) if self.is_unified() => hierarchy::give_back(base),
            _ => Ok(()),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn make_dir(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error("make", path)(error)),
        _ => Ok(()),
    }
}

/// Tries every one and tells the first error.
fn remove_all<'a>(dirs: impl Iterator<Item = &'a Path>) -> Result<(), CgroupError> {
    let mut outcome = Ok(());
    for dir in dirs {
        if let Err(error) = fs::remove_dir(dir)
            && !is_gone(&error)
            && outcome.is_ok()
        {
            outcome = Err(io_error("remove", dir)(error));
        }
    }
    outcome
}

#[cfg(test)]
mod quota_tests;
#[cfg(test)]
mod tests;

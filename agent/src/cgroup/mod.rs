//! Control groups: one set of groups per container, in which the kernel enforces its cpu, memory and pids quota and
//! its device rule, and from which its use is sampled. The only module that knows whether the machine is pure v2 or hybrid
//! (v1 controllers beside a v2 tree without controllers).
//!
//! ```text
//! pure v2                      hybrid
//! BASE/berth-ID      rule      unified/berth-ID      rule      cpu,memory,pids/berth-ID
//!   └─ INSTANCE      limits      └─ INSTANCE  kill, populated    └─ INSTANCE     limits
//! ```
//! A container's groups are used once and never recycled: a counter above 0 is its own. Calls are short writes to
//! cgroupfs (up to tens of milliseconds on v1) and synchronous. Starting processes in a group is the launcher's business.

mod control;
mod device_rule;
mod hierarchy;
mod v1;
mod v2;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use berth_wire::id::InstanceId;
use berth_wire::quota::Quota;

pub use control::CgroupError;
use control::{Kept, apply, io_error, write};
use hierarchy::Hierarchy;

use crate::installation::Installation;

/// CFS bandwidth period: the kernel's default. Longer ones make a throttled request wait longer.
const PERIOD_US: u64 = 100_000;

/// Microseconds of CPU per period.
fn bandwidth_us(quota: &Quota) -> u64 {
    quota.cpu_millis.max * PERIOD_US / 1_000
}

/// All containers' groups of one installation.
#[derive(Debug, Clone)]
pub struct Cgroups {
    /// The parent in the unified tree.
    unified: PathBuf,
    /// The parents in v1's cpu, memory and pids hierarchies; none on pure v2.
    legacy: Option<[PathBuf; 3]>,
    /// The v1 devices parent, used only where the kernel refused the BPF program.
    legacy_devices: Option<PathBuf>,
}

/// One container's groups. Cheap to clone; keeps the files it samples open.
#[derive(Debug, Clone)]
pub struct Cgroup {
    groups: Arc<Groups>,
}

#[derive(Debug)]
struct Groups {
    unified: PathBuf,
    legacy: Option<[PathBuf; 3]>,
    legacy_devices: Option<PathBuf>,
    counters: OnceLock<Counters>,
}

/// Open counter files: 5 or 6 descriptors a container.
#[derive(Debug)]
enum Counters {
    Unified {
        cpu: v2::cpu::Counters,
        memory: v2::memory::Counters,
        pids: v1::pids::Counters,
    },
    Hybrid {
        usage: v2::cpu::Counters,
        cpu: v1::cpu::Counters,
        memory: v1::memory::Counters,
        pids: v1::pids::Counters,
    },
}

/// What puts a process into a container's groups.
#[derive(Debug)]
pub struct CgroupHandles {
    /// The unified group's directory, for CLONE_INTO_CGROUP.
    pub unified: OwnedFd,
    /// The v1 groups' `cgroup.procs`, to write a pid (or `0`) into; empty on pure v2.
    pub legacy: Vec<OwnedFd>,
}

/// Counters and gauges of one container at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupSample {
    /// CPU time used, in microseconds.
    pub cpu_usage_us: u64,
    /// Time not allowed to run, in microseconds.
    pub cpu_throttled_us: u64,
    /// Periods in which that happened.
    pub cpu_throttled_periods: u64,
    /// Periods in which it wanted to run.
    pub cpu_periods: u64,
    /// Charged memory in bytes.
    pub memory_usage_bytes: u64,
    /// Charged memory less inactive file pages, in bytes.
    pub memory_working_set_bytes: u64,
    /// Times the OOM killer struck.
    pub memory_oom_kills: u64,
    /// Processes and threads now.
    pub pids: u64,
}

impl Cgroups {
    /// Makes the parent groups with the device rule on them; those that exist are taken over.
    ///
    /// # Errors
    /// A missing controller or a refused write.
    pub fn open(installation: &Installation) -> Result<Self, CgroupError> {
        let hierarchy = Hierarchy::find()?;
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
        Ok(Self { unified, legacy, legacy_devices })
    }

    /// Whether the machine is pure v2 (the whole container dies as one in an OOM, floors protect).
    pub fn is_unified(&self) -> bool {
        self.legacy.is_none()
    }

    fn group(&self, id: InstanceId) -> Cgroup {
        let name = id.to_string();
        Cgroup {
            groups: Arc::new(Groups {
                unified: self.unified.join(&name),
                legacy: self
                    .legacy
                    .as_ref()
                    .map(|parents| parents.each_ref().map(|parent| parent.join(&name))),
                legacy_devices: self.legacy_devices.clone(),
                counters: OnceLock::new(),
            }),
        }
    }

    /// Makes a container's groups with its quota set; groups that exist are taken over.
    ///
    /// # Errors
    /// A refused write; what was made is removed again.
    pub fn create(&self, id: InstanceId, quota: &Quota) -> Result<Cgroup, CgroupError> {
        let group = self.group(id);
        // The unified group first and last to go: `list` finds by it what a crash left half-made.
        let made = group.groups.own_dirs().try_for_each(make_dir).and_then(|()| group.set_quota(quota));
        if let Err(error) = made {
            // The first error is the one to tell; a group that cannot be removed stays in `list`.
            let _ = group.remove();
            return Err(error);
        }
        Ok(group)
    }

    /// An existing container's groups.
    ///
    /// # Errors
    /// None at present: a half-made group shows when it is used.
    pub fn get(&self, id: InstanceId) -> Result<Option<Cgroup>, CgroupError> {
        let group = self.group(id);
        Ok(group.groups.unified.is_dir().then_some(group))
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

    /// Removes the (empty) parent groups, and the device rule with them. Idempotent.
    ///
    /// # Errors
    /// A parent that still has containers.
    pub fn close_down(&self) -> Result<(), CgroupError> {
        let parents = self.legacy.iter().flatten().chain(&self.legacy_devices).chain([&self.unified]);
        remove_all(parents.map(PathBuf::as_path))
    }
}

impl Groups {
    fn own_dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.unified.as_path()).chain(self.legacy.iter().flatten().map(PathBuf::as_path))
    }

    fn counters(&self) -> Result<&Counters, CgroupError> {
        if let Some(open) = self.counters.get() {
            return Ok(open);
        }
        let unified = &self.unified;
        let open = match &self.legacy {
            None => Counters::Unified {
                cpu: v2::cpu::Counters::open(unified)?,
                memory: v2::memory::Counters::open(unified)?,
                pids: v1::pids::Counters::open(unified)?,
            },
            Some([cpu, memory, pids]) => Counters::Hybrid {
                usage: v2::cpu::Counters::open(unified)?,
                cpu: v1::cpu::Counters::open(cpu)?,
                memory: v1::memory::Counters::open(memory)?,
                pids: v1::pids::Counters::open(pids)?,
            },
        };
        Ok(self.counters.get_or_init(|| open))
    }
}

impl Cgroup {
    /// Fresh descriptors that put a process in.
    ///
    /// # Errors
    /// An unopenable file.
    pub fn handles(&self) -> Result<CgroupHandles, CgroupError> {
        let unified = &self.groups.unified;
        let dir = File::open(unified).map_err(io_error("open", unified))?;
        let legacy = self.groups.legacy.iter().flatten().chain(&self.groups.legacy_devices);
        let legacy = legacy.map(|group| {
            let procs = group.join("cgroup.procs");
            File::options().write(true).open(&procs).map(OwnedFd::from).map_err(io_error("open", &procs))
        });
        Ok(CgroupHandles { unified: dir.into(), legacy: legacy.collect::<Result<_, _>>()? })
    }

    /// Sets every limit.
    ///
    /// # Errors
    /// A refused write, e.g. a memory limit below what is in use and cannot be reclaimed.
    pub fn set_quota(&self, quota: &Quota) -> Result<(), CgroupError> {
        let unified = &self.groups.unified;
        match &self.groups.legacy {
            None => {
                apply(unified, &v2::cpu::limits(quota))?;
                apply(unified, &v2::memory::limits(quota))?;
                apply(unified, &v1::pids::limits(quota))
            }
            Some([cpu, memory, pids]) => {
                apply(cpu, &v1::cpu::limits(quota))?;
                v1::memory::set(memory, quota)?;
                apply(pids, &v1::pids::limits(quota))
            }
        }
    }

    /// Reads every counter.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn sample(&self) -> Result<CgroupSample, CgroupError> {
        let (cpu_usage_us, throttling, memory, memory_oom_kills, pids) = match self.groups.counters()? {
            Counters::Unified { cpu, memory, pids } => {
                (cpu.usage_us()?, cpu.throttling()?, memory.usage()?, memory.oom_kills()?, pids.current()?)
            }
            Counters::Hybrid { usage, cpu, memory, pids } => {
                (usage.usage_us()?, cpu.throttling()?, memory.usage()?, memory.oom_kills()?, pids.current()?)
            }
        };
        let (cpu_periods, cpu_throttled_periods, cpu_throttled_us) = throttling;
        let (memory_usage_bytes, inactive) = memory;
        Ok(CgroupSample {
            cpu_usage_us,
            cpu_throttled_us,
            cpu_throttled_periods,
            cpu_periods,
            memory_usage_bytes,
            memory_working_set_bytes: memory_usage_bytes.saturating_sub(inactive),
            memory_oom_kills,
            pids,
        })
    }

    /// Times the OOM killer struck.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        match self.groups.counters()? {
            Counters::Unified { memory, .. } => memory.oom_kills(),
            Counters::Hybrid { memory, .. } => memory.oom_kills(),
        }
    }

    /// Says whether the OOM killer struck, and if so ends what it spared: v2 has already done so
    /// (memory.oom.group), v1 cannot.
    ///
    /// # Errors
    /// An unreadable file or a refused kill.
    pub fn end_if_out_of_memory(&self) -> Result<bool, CgroupError> {
        let struck = self.oom_kills()? > 0;
        if struck && self.groups.legacy.is_some() && self.populated()? {
            self.kill()?;
        }
        Ok(struck)
    }

    /// Whether any process is in it.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        Ok(Kept::open(&self.groups.unified, "cgroup.events")?.keyed(["populated"])?[0] != 0)
    }

    /// SIGKILL to all of it, forks under way included; harmless if it is gone.
    ///
    /// # Errors
    /// A refused write.
    pub fn kill(&self) -> Result<(), CgroupError> {
        match write(&self.groups.unified.join("cgroup.kill"), "1") {
            Err(CgroupError::Io { source, .. }) if is_gone(&source) => Ok(()),
            done => done,
        }
    }

    /// Waits until no process is in it, at most so long; says whether that came.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn wait_empty(&self, wait_ms_max: u32) -> Result<bool, CgroupError> {
        let path = self.groups.unified.join("cgroup.events");
        let events = match File::open(&path) {
            Err(error) if is_gone(&error) => return Ok(true),
            opened => opened.map_err(io_error("open", &path))?,
        };
        let deadline = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic) + timespec(wait_ms_max);
        loop {
            // Read before each wait: the poll reports changes since the last read of this descriptor.
            let mut content = [0; 256];
            let length = std::os::unix::fs::FileExt::read_at(&events, &mut content, 0).unwrap_or(0);
            if control::keyed(&String::from_utf8_lossy(&content[..length]), "populated") != Some(1) {
                return Ok(true);
            }
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let Some(left) = deadline.checked_sub(now).filter(|left| left.tv_sec >= 0) else {
                return Ok(false);
            };
            let mut polled =
                [rustix::event::PollFd::from_borrowed_fd(events.as_fd(), rustix::event::PollFlags::PRI)];
            match rustix::event::poll(&mut polled, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io_error("wait for", &path)(errno.into())),
            }
        }
    }

    /// Removes all its groups; those already gone are no error. What still runs in it is killed and waited for,
    /// at most [`REMOVE_WAIT_MS_MAX`].
    ///
    /// # Errors
    /// A refused removal, after every group was tried.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let dirs = || {
            let legacy = self.groups.legacy.iter().flatten().map(PathBuf::as_path);
            legacy.chain([self.groups.unified.as_path()])
        };
        match remove_all(dirs()) {
            Err(CgroupError::Io { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
                self.kill()?;
                self.wait_empty(REMOVE_WAIT_MS_MAX)?;
                remove_all(dirs())
            }
            done => done,
        }
    }
}

/// A killed process leaves its group within milliseconds unless it hangs in the kernel; then the caller tries again later.
pub const REMOVE_WAIT_MS_MAX: u32 = 1_000;

fn timespec(ms: u32) -> rustix::time::Timespec {
    rustix::time::Timespec { tv_sec: i64::from(ms / 1_000), tv_nsec: i64::from(ms % 1_000) * 1_000_000 }
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
mod tests;

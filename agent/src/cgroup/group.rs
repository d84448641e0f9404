//! One container's groups: limits, counters, killing and removing.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use berth_wire::quota::Quota;

use super::control::{self, CgroupError, Kept, apply, io_error, write};
use super::{IoDevice, is_gone, remove_all, v1, v2};

/// One container's groups. Cheap to clone; keeps the files it samples open.
#[derive(Debug, Clone)]
pub struct Cgroup {
    pub(super) groups: Arc<Groups>,
}

#[derive(Debug)]
pub(super) struct Groups {
    pub unified: PathBuf,
    pub legacy: Option<[PathBuf; 4]>,
    legacy_devices: Option<PathBuf>,
    io: Arc<OnceLock<IoDevice>>,
    counters: OnceLock<Counters>,
}

/// Open counter files: 7 or 8 descriptors a container.
#[derive(Debug)]
enum Counters {
    Unified {
        cpu: v2::cpu::Counters,
        memory: v2::memory::Counters,
        pids: v1::pids::Counters,
        io: v2::io::Counters,
    },
    Hybrid {
        usage: v2::cpu::Counters,
        cpu: v1::cpu::Counters,
        memory: v1::memory::Counters,
        pids: v1::pids::Counters,
        io: v1::io::Counters,
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
    /// Of its memory, what is swapped out, in bytes; not among the charged.
    pub memory_swap_bytes: u64,
    /// Bytes read from the throttled device.
    pub io_read_bytes: u64,
    /// Bytes written to the throttled device.
    pub io_write_bytes: u64,
    /// Times the OOM killer struck.
    pub memory_oom_kills: u64,
    /// Processes and threads now.
    pub pids: u64,
}

impl Groups {
    pub(super) fn named(
        unified: PathBuf,
        legacy: Option<[PathBuf; 4]>,
        legacy_devices: Option<PathBuf>,
        io: Arc<OnceLock<IoDevice>>,
    ) -> Cgroup {
        Cgroup { groups: Arc::new(Self { unified, legacy, legacy_devices, io, counters: OnceLock::new() }) }
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
                io: v2::io::Counters::open(unified),
            },
            Some([cpu, memory, pids, io]) => Counters::Hybrid {
                usage: v2::cpu::Counters::open(unified)?,
                cpu: v1::cpu::Counters::open(cpu)?,
                memory: v1::memory::Counters::open(memory)?,
                pids: v1::pids::Counters::open(pids)?,
                io: v1::io::Counters::open(io),
            },
        };
        Ok(self.counters.get_or_init(|| open))
    }
}

impl Cgroup {
    /// Its own directories, in the order they are made.
    pub(super) fn own_dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.groups.unified.as_path()).chain(self.legacy_dirs())
    }

    /// Those of v1's controllers.
    pub(super) fn legacy_dirs(&self) -> impl Iterator<Item = &Path> {
        self.groups.legacy.iter().flatten().map(PathBuf::as_path)
    }

    /// Whether any of them is there.
    pub(super) fn exists(&self) -> bool {
        self.own_dirs().any(Path::is_dir)
    }

    /// Fresh descriptors that put a process in.
    ///
    /// # Errors
    /// An unopenable file.
    pub fn handles(&self) -> Result<CgroupHandles, CgroupError> {
        let unified = &self.groups.unified;
        let dir = File::open(unified).map_err(io_error("open", unified))?;
        Ok(CgroupHandles { unified: dir.into(), legacy: self.legacy_handles()? })
    }

    /// As [`CgroupHandles::legacy`].
    pub(super) fn legacy_handles(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        let groups = self.groups.legacy.iter().flatten().chain(&self.groups.legacy_devices);
        let handles = groups.map(|group| {
            let procs = group.join("cgroup.procs");
            File::options().write(true).open(&procs).map(OwnedFd::from).map_err(io_error("open", &procs))
        });
        handles.collect()
    }

    /// Sets every limit. Memory comes first where it can be refused: then nothing has changed.
    ///
    /// # Errors
    /// A refused write, e.g. [`CgroupError::MemoryInUse`].
    pub fn set_quota(&self, quota: &Quota) -> Result<(), CgroupError> {
        let (unified, device) = (&self.groups.unified, self.groups.io.get().copied());
        match &self.groups.legacy {
            None => {
                v2::memory::make_room(unified, quota)?;
                apply(unified, &v2::cpu::limits(quota))?;
                apply(unified, &v2::memory::limits(quota))?;
                apply(unified, &v1::pids::limits(quota))?;
                apply(unified, &device.map_or_else(Vec::new, |device| v2::io::limits(quota, device)))
            }
            Some([cpu, memory, pids, io]) => {
                v1::memory::set(memory, quota)?;
                apply(cpu, &v1::cpu::limits(quota))?;
                apply(pids, &v1::pids::limits(quota))?;
                apply(io, &device.map_or_else(Vec::new, |device| v1::io::limits(quota, device)))
            }
        }
    }

    /// Reads every counter.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn sample(&self) -> Result<CgroupSample, CgroupError> {
        let moved = |counted: Result<(u64, u64), CgroupError>| counted.unwrap_or_default();
        let device = self.groups.io.get().copied();
        let (cpu_usage_us, throttling, memory, swap, oom_kills, pids, io) = match self.groups.counters()? {
            Counters::Unified { cpu, memory, pids, io } => (
                cpu.usage_us()?,
                cpu.throttling()?,
                memory.usage()?,
                memory.swap()?,
                memory.oom_kills()?,
                pids.current()?,
                device.map_or((0, 0), |device| moved(io.bytes(device))),
            ),
            Counters::Hybrid { usage, cpu, memory, pids, io } => (
                usage.usage_us()?,
                cpu.throttling()?,
                memory.usage()?,
                memory.swap()?,
                memory.oom_kills()?,
                pids.current()?,
                device.map_or((0, 0), |device| moved(io.bytes(device))),
            ),
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
            memory_swap_bytes: swap,
            memory_oom_kills: oom_kills,
            io_read_bytes: io.0,
            io_write_bytes: io.1,
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

    /// Whether any process is in it: none without its unified group, into which each is cloned.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        match Kept::open(&self.groups.unified, "cgroup.events") {
            Err(CgroupError::Io { source, .. }) if is_gone(&source) => Ok(false),
            events => Ok(events?.keyed(["populated"])?[0] != 0),
        }
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

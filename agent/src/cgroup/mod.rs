//! Control groups. Skeleton of the names; filled next.

use std::os::fd::OwnedFd;

use berth_wire::id::InstanceId;
use berth_wire::quota::Quota;

use crate::installation::Installation;

/// What could not be done to which control file.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file operation failed.
    #[error("cgroup: {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// All containers' groups of one installation. Calls are short (no I/O but cgroupfs) and synchronous.
#[derive(Debug)]
pub struct Cgroups {}

/// One container's groups. Cheap to clone; keeps the files it samples open.
#[derive(Debug, Clone)]
pub struct Cgroup {}

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
    /// Makes the parent groups, with the device rule on them.
    ///
    /// # Errors
    /// A missing controller or a refused write.
    pub fn open(_installation: &Installation) -> Result<Self, CgroupError> {
        unimplemented!()
    }
    /// Makes a container's groups with its quota set; one that exists is taken over.
    ///
    /// # Errors
    /// A refused write.
    pub fn create(&self, _id: InstanceId, _quota: &Quota) -> Result<Cgroup, CgroupError> {
        unimplemented!()
    }
    /// An existing container's groups.
    ///
    /// # Errors
    /// An unreadable group.
    pub fn get(&self, _id: InstanceId) -> Result<Option<Cgroup>, CgroupError> {
        unimplemented!()
    }
    /// Every container that has a group, half-made ones included.
    ///
    /// # Errors
    /// An unreadable parent.
    pub fn list(&self) -> Result<Vec<InstanceId>, CgroupError> {
        unimplemented!()
    }
    /// Removes the (empty) parent groups.
    ///
    /// # Errors
    /// A refused removal.
    pub fn close_down(&self) -> Result<(), CgroupError> {
        unimplemented!()
    }
}

impl Cgroup {
    /// Fresh descriptors that put a process in.
    ///
    /// # Errors
    /// An unopenable file.
    pub fn handles(&self) -> Result<CgroupHandles, CgroupError> {
        unimplemented!()
    }
    /// Sets every limit.
    ///
    /// # Errors
    /// A refused write.
    pub fn set_quota(&self, _quota: &Quota) -> Result<(), CgroupError> {
        unimplemented!()
    }
    /// Reads every counter.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn sample(&self) -> Result<CgroupSample, CgroupError> {
        unimplemented!()
    }
    /// Times the OOM killer struck. On v1 whoever sees it grow kills the whole container with [`Cgroup::kill`].
    ///
    /// # Errors
    /// An unreadable file.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        unimplemented!()
    }
    /// Whether any process is in it.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        unimplemented!()
    }
    /// SIGKILL to all of it.
    ///
    /// # Errors
    /// A refused write.
    pub fn kill(&self) -> Result<(), CgroupError> {
        unimplemented!()
    }
    /// Removes all its groups, those already gone included; fails with EBUSY while processes are in them.
    ///
    /// # Errors
    /// A refused removal.
    pub fn remove(&self) -> Result<(), CgroupError> {
        unimplemented!()
    }
}

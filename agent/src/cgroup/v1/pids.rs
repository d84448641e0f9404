//! The v1 pids controller.

use std::path::Path;

use berth_wire::quota::Quota;

use super::super::control::{CgroupError, Kept, Setting};

/// The maximum; threads count.
pub(in super::super) fn limits(quota: &Quota) -> Vec<Setting> {
    vec![Setting::new("pids.max", quota.pids.max)]
}

/// Processes and threads; the file is the same on v1 and v2.
#[derive(Debug)]
pub(in super::super) struct Counters {
    current: Kept,
}

impl Counters {
    pub(in super::super) fn open(group: &Path) -> Result<Self, CgroupError> {
        Ok(Self { current: Kept::open(group, "pids.current")? })
    }

    pub(in super::super) fn current(&self) -> Result<u64, CgroupError> {
        self.current.number()
    }
}

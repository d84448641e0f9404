//! The v2 memory controller (cgroup-v2.rst, Memory Interface Files). The floor is memory.low: reclaim takes from others
//! first. memory.high stays unset: an app that leaks would be throttled to a crawl for minutes instead of being ended by name.

use std::path::Path;

use berth_wire::quota::Quota;

use super::super::control::{CgroupError, Kept, Setting};

/// Swap and OOM group first, so that the limit never holds without them.
pub(in super::super) fn limits(quota: &Quota) -> Vec<Setting> {
    vec![
        Setting::optional("memory.swap.max", 0),
        Setting::new("memory.oom.group", 1),
        Setting::new("memory.low", quota.memory_bytes.floor),
        Setting::new("memory.max", quota.memory_bytes.max),
    ]
}

/// What the parent group gets: protection is capped by the ancestors', so the parent passes on whatever a child has.
pub(in super::super) fn parent_limits() -> Vec<Setting> {
    vec![Setting::new("memory.low", "max")]
}

/// Usage and OOM counters.
#[derive(Debug)]
pub(in super::super) struct Counters {
    current: Kept,
    stat: Kept,
    events: Kept,
}

impl Counters {
    pub(in super::super) fn open(group: &Path) -> Result<Self, CgroupError> {
        Ok(Self {
            current: Kept::open(group, "memory.current")?,
            stat: Kept::open(group, "memory.stat")?,
            events: Kept::open(group, "memory.events")?,
        })
    }

    /// Charged bytes, and of those inactive file pages.
    pub(in super::super) fn usage(&self) -> Result<(u64, u64), CgroupError> {
        let [inactive] = self.stat.keyed(["inactive_file"])?;
        Ok((self.current.number()?, inactive))
    }

    /// Times the OOM killer struck.
    pub(in super::super) fn oom_kills(&self) -> Result<u64, CgroupError> {
        Ok(self.events.keyed(["oom_kill"])?[0])
    }
}

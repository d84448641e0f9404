//! The v2 memory controller (cgroup-v2.rst, Memory Interface Files). The floor is memory.low: reclaim takes from others
//! first. memory.high stays unset unless it is asked for: an app that leaks would be throttled to a crawl for minutes instead of being ended by name.

use std::path::Path;

use berth_wire::quota::Quota;

use super::super::control::{CgroupError, Kept, Setting, read, read_number, write};

/// The bound on swap alone.
pub(in super::super) fn swap(quota: &Quota) -> Vec<Setting> {
    vec![Setting::optional("memory.swap.max", quota.swap_bytes)]
}

/// Swap and OOM group first, so that the limit never holds without them.
pub(in super::super) fn limits(quota: &Quota) -> Vec<Setting> {
    vec![
        Setting::optional("memory.swap.max", quota.swap_bytes),
        Setting::new("memory.oom.group", 1),
        Setting::new("memory.low", quota.memory_bytes.floor),
        Setting::new("memory.max", quota.memory_bytes.max),
        Setting::new("memory.high", high(quota)),
    ]
}

/// Sees to it that the memory in use fits a new limit: written at once, a limit below it would have the OOM killer end the
/// container. memory.high keeps use from growing meanwhile (memory.reclaim is there since 5.19).
pub(in super::super) fn make_room(group: &Path, quota: &Quota) -> Result<(), CgroupError> {
    let (current, max_bytes) = (group.join("memory.current"), quota.memory_bytes.max);
    let excess = read_number(&current)?.saturating_sub(max_bytes);
    if excess == 0 {
        return Ok(());
    }
    let high = group.join("memory.high");
    let before = read(&high)?;
    write(&high, &max_bytes.to_string())?;
    // Refused (EAGAIN) if it got less than was asked for; what counts is what is left.
    let _ = write(&group.join("memory.reclaim"), &(excess + RECLAIM_EXTRA_BYTES).to_string());
    let usage_bytes = read_number(&current)?;
    if usage_bytes <= max_bytes {
        return Ok(());
    }
    write(&high, before.trim())?;
    Err(CgroupError::MemoryInUse { usage_bytes, max_bytes })
}

/// Reclaimed beyond what is asked for, so that the container can breathe until the limit is set.
const RECLAIM_EXTRA_BYTES: u64 = 1 << 20;

fn high(quota: &Quota) -> String {
    if quota.memory_high_bytes == 0 { "max".to_owned() } else { quota.memory_high_bytes.to_string() }
}

/// What the parent group gets: protection is capped by the ancestors', so the parent passes on whatever a child has.
pub(in super::super) fn parent_limits() -> Vec<Setting> {
    vec![Setting::new("memory.low", "max")]
}

/// Usage and OOM counters.
#[derive(Debug)]
pub(in super::super) struct Counters {
    current: Kept,
    swap: Option<Kept>,
    stat: Kept,
    events: Kept,
}

impl Counters {
    pub(in super::super) fn open(group: &Path) -> Result<Self, CgroupError> {
        Ok(Self {
            current: Kept::open(group, "memory.current")?,
            swap: Kept::open(group, "memory.swap.current").ok(),
            stat: Kept::open(group, "memory.stat")?,
            events: Kept::open(group, "memory.events")?,
        })
    }

    /// Charged bytes, and of those inactive file pages.
    pub(in super::super) fn usage(&self) -> Result<(u64, u64), CgroupError> {
        let [inactive] = self.stat.keyed(["inactive_file"])?;
        Ok((self.current.number()?, inactive))
    }

    /// Bytes swapped out; none where swap is not accounted.
    pub(in super::super) fn swap(&self) -> Result<u64, CgroupError> {
        self.swap.as_ref().map_or(Ok(0), Kept::number)
    }

    /// Times the OOM killer struck.
    pub(in super::super) fn oom_kills(&self) -> Result<u64, CgroupError> {
        Ok(self.events.keyed(["oom_kill"])?[0])
    }
}

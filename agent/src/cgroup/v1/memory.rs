//! The v1 memory controller (cgroup-v1/memory.rst). Swap is bounded by the memory+swap limit where swap is accounted; a quota of none also by
//! swappiness. use_hierarchy needs no setting: since 5.11 it cannot be off.

use std::path::Path;

use berth_wire::quota::Quota;

use super::super::control::{CgroupError, Kept, Setting, apply, keyed, read_number};

const LIMIT: &str = "memory.limit_in_bytes";
pub(in super::super) const LIMIT_WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
/// v1 counts the buffers of TCP sockets apart from memory, without a limit unless this is set: one container could then take
/// all that net.ipv4.tcp_mem grants the whole machine, and everybody's connections would stall. Above it the kernel gives each
/// connection no more than its least (some dozen KiB): it slows growth down and is no hard bound.
const LIMIT_OF_TCP: &str = "memory.kmem.tcp.limit_in_bytes";

/// A quarter of the memory; 4 MiB at least, some dozen connections at full speed.
fn network_buffers_max(quota: &Quota) -> u64 {
    (quota.memory_bytes.max / 4).max(4 << 20)
}

/// Sets both limits. The kernel refuses a moment in which memory is above memory+swap, so the order depends on the
/// direction: lowering writes memory first, raising memory+swap first. A limit below what is in use makes the kernel
/// reclaim, and refuse (EBUSY) if that is not enough.
pub(in super::super) fn set(group: &Path, quota: &Quota) -> Result<(), CgroupError> {
    let max = quota.memory_bytes.max;
    let memory = Setting::new(LIMIT, max);
    let with_swap = Setting::optional(LIMIT_WITH_SWAP, max + quota.swap_bytes);
    // 60 is the kernel's default.
    let swappiness = if quota.swap_bytes == 0 { 0 } else { 60 };
    let network_buffers = Setting::optional(LIMIT_OF_TCP, network_buffers_max(quota));
    apply(group, &[Setting::optional("memory.swappiness", swappiness), network_buffers])?;
    let lowers = max < read_number(&group.join(LIMIT))?;
    let done = if lowers { apply(group, &[memory, with_swap]) } else { apply(group, &[with_swap, memory]) };
    match done {
        Err(CgroupError::Io { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
            let usage_bytes = read_number(&group.join("memory.usage_in_bytes"))?;
            Err(CgroupError::MemoryInUse { usage_bytes, max_bytes: max })
        }
        done => done,
    }
}

/// Usage and OOM counters.
#[derive(Debug)]
pub(in super::super) struct Counters {
    usage: Kept,
    stat: Kept,
    oom: Kept,
}

impl Counters {
    pub(in super::super) fn open(group: &Path) -> Result<Self, CgroupError> {
        Ok(Self {
            usage: Kept::open(group, "memory.usage_in_bytes")?,
            stat: Kept::open(group, "memory.stat")?,
            oom: Kept::open(group, "memory.oom_control")?,
        })
    }

    /// Charged bytes, and of those inactive file pages.
    pub(in super::super) fn usage(&self) -> Result<(u64, u64), CgroupError> {
        let [inactive] = self.stat.keyed(["total_inactive_file"])?;
        Ok((self.usage.number()?, inactive))
    }

    /// Bytes swapped out; none where swap is not accounted.
    pub(in super::super) fn swap(&self) -> Result<u64, CgroupError> {
        Ok(keyed(&self.stat.read()?, "total_swap").unwrap_or(0))
    }

    /// Times the OOM killer struck.
    pub(in super::super) fn oom_kills(&self) -> Result<u64, CgroupError> {
        Ok(self.oom.keyed(["oom_kill"])?[0])
    }
}

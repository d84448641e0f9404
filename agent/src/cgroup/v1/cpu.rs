//! The v1 cpu controller: shares and CFS bandwidth (scheduler/sched-bwc.rst). Usage is read from the unified group.

use std::path::Path;

use berth_wire::quota::Quota;

use super::super::control::{CgroupError, Kept, Setting};
use super::super::{PERIOD_US, bandwidth_us, burst_us};

const BURST: &str = "cpu.cfs_burst_us";

/// 1,024 shares are one core's floor; 2 and 262,144 are the kernel's bounds.
pub(in super::super) fn limits(quota: &Quota) -> Vec<Setting> {
    let shares = (quota.cpu_millis.floor * 1_024 / 1_000).clamp(2, 262_144);
    vec![
        Setting::new("cpu.shares", shares),
        // The kernel refuses a moment in which the burst is above the bandwidth (5.14 has it).
        Setting::optional(BURST, 0),
        Setting::new("cpu.cfs_period_us", PERIOD_US),
        Setting::new("cpu.cfs_quota_us", bandwidth_us(quota)),
        Setting::optional(BURST, burst_us(quota)),
    ]
}

/// Throttling counters.
#[derive(Debug)]
pub(in super::super) struct Counters {
    stat: Kept,
}

impl Counters {
    pub(in super::super) fn open(group: &Path) -> Result<Self, CgroupError> {
        Ok(Self { stat: Kept::open(group, "cpu.stat")? })
    }

    /// Periods, throttled periods, throttled microseconds (the file has nanoseconds).
    pub(in super::super) fn throttling(&self) -> Result<(u64, u64, u64), CgroupError> {
        let [periods, throttled, ns] = self.stat.keyed(["nr_periods", "nr_throttled", "throttled_time"])?;
        Ok((periods, throttled, ns / 1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_wire::quota::Bounds;

    #[test]
    fn a_floor_must_become_shares_and_a_max_bandwidth() {
        let quota = Quota { cpu_millis: Bounds::new(500, 1_500), cpu_burst_millis: 250, ..Quota::default() };
        let written: Vec<_> = limits(&quota).into_iter().map(|s| (s.file, s.value)).collect();
        assert_eq!(
            written,
            [
                ("cpu.shares", "512".into()),
                ("cpu.cfs_burst_us", "0".into()),
                ("cpu.cfs_period_us", "100000".into()),
                ("cpu.cfs_quota_us", "150000".into()),
                ("cpu.cfs_burst_us", "25000".into())
            ]
        );
    }

    #[test]
    fn no_floor_must_still_be_the_kernel_s_least_shares() {
        let quota = Quota { cpu_millis: Bounds::new(0, 100), ..Quota::default() };
        assert_eq!(limits(&quota)[0].value, "2");
    }
}

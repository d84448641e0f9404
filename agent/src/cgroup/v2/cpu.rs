//! The v2 cpu controller (cgroup-v2.rst, CPU Interface Files). `cpu.stat`'s usage is there without the controller, too,
//! which is where a hybrid machine's containers get it.

use std::path::Path;

use berth_wire::quota::Quota;

use super::super::control::{CgroupError, Kept, Setting};
use super::super::{PERIOD_US, bandwidth_us, burst_us};

const BURST: &str = "cpu.max.burst";

/// Weight 100, the default, is one core's floor; 1 and 10,000 are the kernel's bounds.
pub(in super::super) fn limits(quota: &Quota) -> Vec<Setting> {
    let weight = (quota.cpu_millis.floor / 10).clamp(1, 10_000);
    vec![
        Setting::new("cpu.weight", weight),
        // The kernel refuses a moment in which the burst is above the bandwidth (5.14 has it).
        Setting::optional(BURST, 0),
        Setting::new("cpu.max", format!("{} {PERIOD_US}", bandwidth_us(quota))),
        Setting::optional(BURST, burst_us(quota)),
    ]
}

/// Usage and throttling counters.
#[derive(Debug)]
pub(in super::super) struct Counters {
    stat: Kept,
}

impl Counters {
    pub(in super::super) fn open(group: &Path) -> Result<Self, CgroupError> {
        Ok(Self { stat: Kept::open(group, "cpu.stat")? })
    }

    /// CPU time in microseconds.
    pub(in super::super) fn usage_us(&self) -> Result<u64, CgroupError> {
        Ok(self.stat.keyed(["usage_usec"])?[0])
    }

    /// Periods, throttled periods, throttled microseconds.
    pub(in super::super) fn throttling(&self) -> Result<(u64, u64, u64), CgroupError> {
        let [periods, throttled, us] = self.stat.keyed(["nr_periods", "nr_throttled", "throttled_usec"])?;
        Ok((periods, throttled, us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_wire::quota::Bounds;

    #[test]
    fn a_floor_must_become_a_weight_and_a_max_bandwidth() {
        let quota = Quota { cpu_millis: Bounds::new(500, 1_500), cpu_burst_millis: 250, ..Quota::default() };
        let written: Vec<_> = limits(&quota).into_iter().map(|s| (s.file, s.value)).collect();
        let expected = [
            ("cpu.weight", "50".into()),
            ("cpu.max.burst", "0".into()),
            ("cpu.max", "150000 100000".into()),
            ("cpu.max.burst", "25000".into()),
        ];
        assert_eq!(written, expected);
    }
}

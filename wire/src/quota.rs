//! Quotas. What a host can run out of has a *floor* (reserved; what placement counts) and a *max* (what the kernel
//! enforces); what only must not be overdone is one amount. An instance whose quota nobody stated gets [`Quota::default`], never none.

use serde::{Deserialize, Serialize};

/// Floor and maximum of one resource, in the resource's unit. Invariant: `floor <= max`, checked by [`Quota::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bounds {
    /// Reserved for the instance; the sum over a host never exceeds what the host has.
    pub floor: u64,
    /// What the kernel (or, for the log rate, the launcher) enforces.
    pub max: u64,
}

impl Bounds {
    /// Both at once.
    pub const fn new(floor: u64, max: u64) -> Self {
        Self { floor, max }
    }
}

/// What one instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Quota {
    /// CPU in thousandths of a core. Floor is also the weight (cpu.weight, v1 cpu.shares), max the bandwidth (cpu.max, v1 cpu.cfs_quota_us).
    pub cpu_millis: Bounds,
    /// CPU that was not used and may be made up for in one period of 100 ms, in thousandths of a core (cpu.max.burst, v1 cpu.cfs_burst_us). At
    /// most max; 0 for none.
    pub cpu_burst_millis: u64,
    /// Memory in bytes, page cache and tmpfs included. Max is memory.max (v1 memory.limit_in_bytes).
    pub memory_bytes: Bounds,
    /// Memory in bytes above which it is slowed down and reclaimed from (memory.high); 0 for none. v1 has no such thing.
    pub memory_high_bytes: u64,
    /// Swap in bytes, beyond memory (memory.swap.max, v1 memory.memsw.limit_in_bytes). What the host has no swap for is not to be had.
    pub swap_bytes: u64,
    /// Processes and threads (pids.max).
    pub pids: Bounds,
    /// Bytes written to the instance's own root. Names and inodes count: it bounds the number of files, too.
    pub disk_bytes: Bounds,
    /// Bytes a second read from the host's disk for it, and as many written (io.max, v1 blkio.throttle.*_bps_device). v1 does not slow
    /// down what is written through the page cache.
    pub io_bytes_per_second: u64,
    /// Reads a second, and as many writes (io.max, v1 blkio.throttle.*_iops_device).
    pub io_operations_per_second: u64,
    /// Bytes a second it may send (a token bucket on its interface).
    pub egress_bytes_per_second: u64,
    /// Files that one process may have open (RLIMIT_NOFILE).
    pub open_files: u64,
    /// Log lines a second; above max they are discarded and counted.
    pub log_lines_per_second: Bounds,
}

/// One mebibyte in bytes.
pub const MIB: u64 = 1024 * 1024;

impl Default for Quota {
    fn default() -> Self {
        Self {
            cpu_millis: Bounds::new(50, 1_000),
            cpu_burst_millis: 0,
            memory_bytes: Bounds::new(64 * MIB, 512 * MIB),
            memory_high_bytes: 0,
            swap_bytes: 0,
            pids: Bounds::new(16, 256),
            disk_bytes: Bounds::new(16 * MIB, 1_024 * MIB),
            // A quarter of what a plain SSD over SATA gives, and what a 1 Gbit/s interface carries: room for any app, and for others.
            io_bytes_per_second: 128 * MIB,
            io_operations_per_second: 10_000,
            egress_bytes_per_second: 120 * MIB,
            open_files: 65_536,
            log_lines_per_second: Bounds::new(10, 1_000),
        }
    }
}

/// A quota that cannot be: which resource, what was asked, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuota {
    /// The floor is above the max.
    #[error("{resource}: a floor of {} is above the max of {}; lower the floor or raise the max", amount(resource, *floor), amount(resource, *max))]
    FloorAboveMax {
        /// Which resource.
        resource: &'static str,
        /// What was asked as the floor.
        floor: u64,
        /// What was asked as the max.
        max: u64,
    },
    /// The amount is outside what can be enforced sensibly.
    #[error("{resource}: {} is outside what can be, {} to {}", amount(resource, *max), amount(resource, *least), amount(resource, *most))]
    OutOfRange {
        /// Which resource.
        resource: &'static str,
        /// What was asked.
        max: u64,
        /// The least max that can work.
        least: u64,
        /// The largest that is accepted.
        most: u64,
    },
}

/// An amount of a resource with its unit, for people.
fn amount(resource: &str, value: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")];
    let unit = units.iter().find(|(size, _)| value >= *size && value.is_multiple_of(*size));
    match unit {
        Some((size, unit)) if resource.contains("bytes") => format!("{} {unit}", value / size),
        None if resource.contains("bytes") => format!("{value} bytes"),
        _ if resource.ends_with("millis") => format!("{value}m"),
        _ => value.to_string(),
    }
}

impl Quota {
    /// Each resource with its field name and the range its max must lie in.
    ///
    /// 10 milli-CPUs: the kernel's least bandwidth is 1 ms per 100 ms. 4 MiB: below that not even the loader fits.
    /// 4 pids: init, the main process and room for one pipeline. 1 MiB of disk: the directories themselves.
    pub fn resources(&self) -> [(&'static str, Bounds, u64, u64); 5] {
        [
            ("cpu_millis", self.cpu_millis, 10, 1_024_000),
            ("memory_bytes", self.memory_bytes, 4 * MIB, 1 << 45),
            ("pids", self.pids, 4, 4_194_304),
            ("disk_bytes", self.disk_bytes, MIB, 1 << 50),
            ("log_lines_per_second", self.log_lines_per_second, 1, 1_000_000),
        ]
    }

    /// Each amount that is neither floor nor max, with its field name and the range it must lie in.
    ///
    /// Burst and high beyond the max would mean nothing (and the kernel refuses the former). 64 KiB and 10 operations a second: below that not
    /// even a page is read in time. 16 KiB a second: ten packets. 16 files: the loader, the streams and a socket; 1,048,576 is the kernel's fs.nr_open.
    pub fn amounts(&self) -> [(&'static str, u64, u64, u64); 7] {
        let high_least = if self.memory_high_bytes == 0 { 0 } else { 4 * MIB };
        [
            ("cpu_burst_millis", self.cpu_burst_millis, 0, self.cpu_millis.max),
            ("memory_high_bytes", self.memory_high_bytes, high_least, self.memory_bytes.max),
            ("swap_bytes", self.swap_bytes, 0, 1 << 45),
            ("io_bytes_per_second", self.io_bytes_per_second, 64 * 1_024, 1 << 40),
            ("io_operations_per_second", self.io_operations_per_second, 10, 100_000_000),
            ("egress_bytes_per_second", self.egress_bytes_per_second, 16 * 1_024, 1 << 36),
            ("open_files", self.open_files, 16, 1_048_576),
        ]
    }

    /// The fields that are not at their default.
    pub fn stated(&self) -> Vec<&'static str> {
        let default = Self::default();
        let bounds = self.resources().into_iter().zip(default.resources());
        let amounts = self.amounts().into_iter().zip(default.amounts());
        let bounds = bounds.filter(|(own, other)| own.1 != other.1).map(|(own, _)| own.0);
        bounds.chain(amounts.filter(|(own, other)| own.1 != other.1).map(|(own, _)| own.0)).collect()
    }

    /// Checks every invariant.
    ///
    /// # Errors
    /// The first resource that breaks one.
    pub fn check(&self) -> Result<(), InvalidQuota> {
        for (resource, Bounds { floor, max }, least, most) in self.resources() {
            if max < least || max > most {
                return Err(InvalidQuota::OutOfRange { resource, max, least, most });
            }
            if floor > max {
                return Err(InvalidQuota::FloorAboveMax { resource, floor, max });
            }
        }
        for (resource, max, least, most) in self.amounts() {
            if max < least || max > most {
                return Err(InvalidQuota::OutOfRange { resource, max, least, most });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_must_be_valid() {
        Quota::default().check().unwrap();
    }

    #[test]
    fn a_floor_above_its_max_must_be_refused() {
        let quota = Quota { pids: Bounds::new(10, 5), ..Quota::default() };
        assert!(matches!(quota.check(), Err(InvalidQuota::FloorAboveMax { resource: "pids", .. })));
    }

    #[test]
    fn a_refusal_must_have_units() {
        let quota = Quota { memory_bytes: Bounds::new(1_024, 1_024), ..Quota::default() };
        let refused = quota.check().unwrap_err().to_string();
        assert_eq!(refused, "memory_bytes: 1 KiB is outside what can be, 4 MiB to 32 TiB");
    }

    #[test]
    fn an_amount_that_cannot_be_must_be_refused_by_name() {
        let burst = Quota { cpu_burst_millis: 1_001, ..Quota::default() };
        let high = Quota { memory_high_bytes: MIB, ..Quota::default() };
        let files = Quota { open_files: 3, ..Quota::default() };
        let named = |quota: Quota| quota.check().unwrap_err().to_string();
        assert_eq!(named(burst), "cpu_burst_millis: 1001m is outside what can be, 0m to 1000m");
        assert_eq!(named(high), "memory_high_bytes: 1 MiB is outside what can be, 4 MiB to 512 MiB");
        assert_eq!(named(files), "open_files: 3 is outside what can be, 16 to 1048576");
    }

    #[test]
    fn missing_resources_must_get_the_default() {
        let quota: Quota = serde_json::from_str(r#"{"pids":{"floor":5,"max":50}}"#).unwrap();
        assert_eq!(quota, Quota { pids: Bounds::new(5, 50), ..Quota::default() });
    }
}

//! Quotas. Each resource has a *floor* (reserved; what placement counts) and a *max* (what the kernel
//! enforces). An instance whose quota nobody stated gets [`Quota::default`], never none.

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
    /// CPU in thousandths of a core. Floor becomes the weight (cpu.weight, v1 cpu.shares), max the bandwidth (cpu.max, v1 cpu.cfs_quota_us).
    pub cpu_millis: Bounds,
    /// Memory in bytes, page cache and tmpfs included. Max is memory.max (v1 memory.limit_in_bytes). Swap is 0.
    pub memory_bytes: Bounds,
    /// Processes and threads (pids.max).
    pub pids: Bounds,
    /// Bytes written to the instance's own root.
    pub disk_bytes: Bounds,
    /// Log lines a second; above max they are discarded and counted.
    pub log_lines_per_second: Bounds,
}

/// One mebibyte in bytes.
pub const MIB: u64 = 1024 * 1024;

impl Default for Quota {
    fn default() -> Self {
        Self {
            cpu_millis: Bounds::new(50, 1_000),
            memory_bytes: Bounds::new(64 * MIB, 512 * MIB),
            pids: Bounds::new(16, 256),
            disk_bytes: Bounds::new(16 * MIB, 1_024 * MIB),
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
    /// The max is outside what can be enforced sensibly.
    #[error("{resource}: a max of {} is outside what can be, {} to {}", amount(resource, *max), amount(resource, *least), amount(resource, *most))]
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
    match (resource, unit) {
        ("memory_bytes" | "disk_bytes", Some((size, unit))) => format!("{} {unit}", value / size),
        ("memory_bytes" | "disk_bytes", None) => format!("{value} bytes"),
        ("cpu_millis", _) => format!("{value}m"),
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
        assert_eq!(refused, "memory_bytes: a max of 1 KiB is outside what can be, 4 MiB to 32 TiB");
    }

    #[test]
    fn missing_resources_must_get_the_default() {
        let quota: Quota = serde_json::from_str(r#"{"pids":{"floor":5,"max":50}}"#).unwrap();
        assert_eq!(quota, Quota { pids: Bounds::new(5, 50), ..Quota::default() });
    }
}

//! What the host is and has, from /proc.

use std::collections::BTreeMap;

use berth_wire::quota::MIB;
use berth_wire::report::HostFacts;

use crate::disk::Disk;

/// Of what instances may hold above their floors; with less left, a host says so.
const BURST_LEFT_PARTS: u64 = 16;

/// The facts. `disk` is what the instances' roots are on.
pub(super) fn facts(
    disk: Option<&Disk>,
    warnings: &[String],
    unenforced: &BTreeMap<String, String>,
) -> HostFacts {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let sysctl = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        text.trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let (disk_bytes, disk_available_bytes) = disk.and_then(|disk| disk.space().ok()).unwrap_or_default();
    let mut warnings = warnings.to_vec();
    warnings.extend(disk.and_then(disk_warning));
    HostFacts {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: sysctl("osrelease"),
        cpu_millis: cores * 1_000,
        memory_bytes: meminfo(&memory, "MemTotal"),
        memory_available_bytes: meminfo(&memory, "MemAvailable"),
        disk_bytes,
        disk_available_bytes,
        disk_reservable_bytes: disk.map_or(0, |disk| disk.shares().floors_bytes),
        pids: sysctl("pid_max").parse().unwrap_or_default(),
        warnings,
        unenforced: unenforced.clone(),
    }
}

/// Apps that are over their floors cannot write on: their owners see errors, and whoever runs the host should know why.
fn disk_warning(disk: &Disk) -> Option<String> {
    let burst = disk.shares().burst_bytes?;
    let left = disk.burst_left()?;
    (left < burst / BURST_LEFT_PARTS).then(|| {
        format!(
            "disk: instances hold {} of the {} MiB there are beyond their floors; what goes on writing there gets \
             \"Disk quota exceeded\" (D13); enlarge pool_bytes or lower the disk max of who fills it",
            (burst - left) / MIB,
            burst / MIB
        )
    })
}

/// One line of /proc/meminfo, in bytes (proc.rst: the unit is always kB, and means KiB).
fn meminfo(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kibibytes = value.and_then(|v| v.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_must_be_read_in_bytes() {
        let text = "MemTotal:       24576000 kB\nMemFree:        1 kB\nMemAvailable:   100 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), 24_576_000 * 1_024);
        assert_eq!(meminfo(text, "MemAvailable"), 102_400);
        assert_eq!(meminfo(text, "Mem"), 0);
    }

    #[test]
    fn this_host_must_have_cores_memory_and_a_kernel() {
        let facts = facts(None, &[], &BTreeMap::new());
        assert!(facts.cpu_millis >= 1_000 && facts.memory_bytes > 0 && facts.pids > 0);
        assert!(facts.kernel.contains('.'));
    }
}

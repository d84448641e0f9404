//! What the host is and has, from /proc.

use berth_wire::report::HostFacts;

/// The facts. `disk` is size and free bytes of the file system with the instances' roots.
pub(super) fn facts(disk: Option<(u64, u64)>, warnings: &[String]) -> HostFacts {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let sysctl = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        text.trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let (disk_bytes, disk_available_bytes) = disk.unwrap_or_default();
    HostFacts {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: sysctl("osrelease"),
        cpu_millis: cores * 1_000,
        memory_bytes: meminfo(&memory, "MemTotal"),
        memory_available_bytes: meminfo(&memory, "MemAvailable"),
        disk_bytes,
        disk_available_bytes,
        pids: sysctl("pid_max").parse().unwrap_or_default(),
        warnings: warnings.to_vec(),
    }
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
        let facts = facts(Some((10, 5)), &[]);
        assert!(facts.cpu_millis >= 1_000 && facts.memory_bytes > 0 && facts.pids > 0);
        assert!(facts.kernel.contains('.'));
    }
}

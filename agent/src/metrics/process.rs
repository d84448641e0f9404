//! The agent's own process, with the names that every Prometheus client library uses.

use super::families::Families;

/// USER_HZ, which the kernel has fixed at 100 for user space on every architecture Berth runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds what /proc says about this process.
pub(super) fn own(families: &mut Families) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let Some(fields) = fields(&stat) else { return };
    let page = rustix::param::page_size() as f64;
    families.counter(
        "process_cpu_seconds_total",
        "CPU time of the agent.",
        [(Vec::new(), (fields.user_ticks + fields.system_ticks) / TICKS_PER_SECOND)],
    );
    let mut gauge = |name, help, value| families.gauge(name, help, [(Vec::new(), value)]);
    gauge("process_resident_memory_bytes", "Resident memory of the agent.", fields.resident_pages * page);
    gauge("process_virtual_memory_bytes", "Virtual memory of the agent.", fields.virtual_bytes);
    gauge("process_threads", "Threads of the agent.", fields.threads);
    gauge(
        "process_start_time_seconds",
        "When the agent was started.",
        boot_time() + fields.start_ticks / TICKS_PER_SECOND,
    );
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64;
    gauge("process_open_fds", "File descriptors the agent has open.", open);
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    gauge("process_max_fds", "File descriptors the agent may have open.", most.unwrap_or(u64::MAX) as f64);
}

struct Fields {
    user_ticks: f64,
    system_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

/// Fields 14, 15, 20, 22, 23 and 24 of proc_pid_stat(5), counted from behind the name, which may hold anything.
fn fields(stat: &str) -> Option<Fields> {
    let rest = stat.rsplit_once(')')?.1;
    let third_on: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| third_on.get(number - 3)?.parse::<f64>().ok();
    Some(Fields {
        user_ticks: field(14)?,
        system_ticks: field(15)?,
        threads: field(20)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

fn boot_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    seconds.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_must_not_shift_the_fields() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 0 0 0 0 0 11 12 0 0 20 0 5 0 99 4096 3 0";
        let fields = fields(stat).unwrap();
        assert_eq!((fields.user_ticks, fields.system_ticks, fields.threads), (11.0, 12.0, 5.0));
        assert_eq!((fields.start_ticks, fields.virtual_bytes, fields.resident_pages), (99.0, 4096.0, 3.0));
    }
}

//! Metrics of instances. cAdvisor's names where it has one, so that existing dashboards and alerts fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_wire::edge::{EdgeStats, RequestStats};
use berth_wire::id::InstanceId;
use berth_wire::report::{InstanceSample, InstanceState};
use berth_wire::spec::InstanceSpec;

use super::families::{Families, Labels};
use crate::reconcile::{Seen, Snapshot};

/// The kernel's period of bandwidth control, which Berth leaves at its default.
const CPU_PERIOD_US: f64 = 100_000.0;

fn labels(id: InstanceId, spec: &InstanceSpec) -> Labels {
    vec![
        ("app", spec.app_name.to_string()),
        ("process", format!("{}.{}", spec.process, spec.index)),
        ("instance", id.to_string()),
        ("release", format!("v{}", spec.release)),
    ]
}

/// What the kernel counted per container, and the limits it enforces.
pub(super) fn containers(families: &mut Families, snapshot: &Snapshot, samples: &[InstanceSample]) {
    let specs: BTreeMap<InstanceId, &Arc<InstanceSpec>> =
        snapshot.instances.iter().filter_map(|seen| Some((seen.report.id, seen.spec.as_ref()?))).collect();
    let sampled: Vec<(InstanceId, &InstanceSpec, &InstanceSample)> = samples
        .iter()
        .filter_map(|sample| {
            let id = sample.instance?;
            Some((id, specs.get(&id)?.as_ref(), sample))
        })
        .collect();
    let each = |value: fn(&InstanceSpec, &InstanceSample) -> f64| {
        sampled.iter().map(move |(id, spec, sample)| (labels(*id, spec), value(spec, sample)))
    };
    counters(families, each);
    gauges(families, each);
}

type Value = fn(&InstanceSpec, &InstanceSample) -> f64;

fn counters<I: Iterator<Item = (Labels, f64)>>(families: &mut Families, each: impl Fn(Value) -> I) {
    let rows: [(&str, &str, Value); 9] = [
        ("container_cpu_usage_seconds_total", "CPU time used.", |_, s| seconds(s.cpu_usage_us)),
        (
            "container_cpu_cfs_throttled_seconds_total",
            "Time in which it was kept from running by its CPU quota.",
            |_, s| seconds(s.cpu_throttled_us),
        ),
        (
            "container_cpu_cfs_throttled_periods_total",
            "Periods in which it was kept from running by its CPU quota.",
            |_, s| s.cpu_throttled_periods as f64,
        ),
        ("container_cpu_cfs_periods_total", "Periods in which it wanted to run.", |_, s| {
            s.cpu_periods as f64
        }),
        ("container_fs_reads_bytes_total", "Bytes read from disk for it.", |_, s| s.io_read_bytes as f64),
        ("container_fs_writes_bytes_total", "Bytes written to disk for it.", |_, s| s.io_write_bytes as f64),
        ("container_network_receive_bytes_total", "Bytes received.", |_, s| s.network_receive_bytes as f64),
        ("container_network_transmit_bytes_total", "Bytes sent.", |_, s| s.network_transmit_bytes as f64),
        (
            "berth_log_lines_discarded_total",
            "Log lines discarded because they came faster than the quota allows.",
            |_, s| s.log_lines_discarded as f64,
        ),
    ];
    for (name, help, value) in rows {
        families.counter(name, help, each(value));
    }
}

fn gauges<I: Iterator<Item = (Labels, f64)>>(families: &mut Families, each: impl Fn(Value) -> I) {
    let rows: [(&str, &str, Value); 10] = [
        ("container_memory_usage_bytes", "Memory charged to it, page cache included.", |_, s| {
            s.memory_usage_bytes as f64
        }),
        (
            "container_memory_working_set_bytes",
            "Memory charged to it less what the kernel can take back without harm.",
            |_, s| s.memory_working_set_bytes as f64,
        ),
        ("container_memory_swap", "Of its memory, what is swapped out.", |_, s| s.memory_swap_bytes as f64),
        (
            "container_spec_memory_swap_limit_bytes",
            "The most memory and swap together it may use.",
            |spec, _| (spec.quota.memory_bytes.max + spec.quota.swap_bytes) as f64,
        ),
        ("container_spec_memory_limit_bytes", "The most memory it may use.", |spec, _| {
            spec.quota.memory_bytes.max as f64
        }),
        ("container_spec_cpu_quota", "CPU time it may use per period, in microseconds.", |spec, _| {
            spec.quota.cpu_millis.max as f64 * CPU_PERIOD_US / 1_000.0
        }),
        ("container_spec_cpu_period", "Period of its CPU quota, in microseconds.", |_, _| CPU_PERIOD_US),
        (
            "container_fs_usage_bytes",
            "Bytes it has written to its own root. Lags behind: data counts when the file system writes it, metadata when it \
             commits, up to 30 seconds later.",
            |_, s| s.disk_usage_bytes as f64,
        ),
        ("container_fs_limit_bytes", "The most bytes it may write to its own root.", |spec, _| {
            spec.quota.disk_bytes.max as f64
        }),
        ("container_processes", "Processes and threads in it.", |_, s| s.pids as f64),
    ];
    for (name, help, value) in rows {
        families.gauge(name, help, each(value));
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Restarts and health.
pub(super) fn lives(families: &mut Families, snapshot: &Snapshot) {
    let each = |value: fn(&Seen) -> f64| {
        let known = snapshot.instances.iter().filter_map(|seen| Some((seen, seen.spec.as_ref()?)));
        known.map(move |(seen, spec)| (labels(seen.report.id, spec), value(seen)))
    };
    families.counter(
        "berth_instance_restarts_total",
        "Times it was started again after it had ended by itself.",
        each(|seen| f64::from(seen.report.restarts)),
    );
    families.counter(
        "container_oom_events_total",
        "Times it ran out of memory and was ended as a whole.",
        each(|seen| f64::from(seen.out_of_memory)),
    );
    families.gauge(
        "berth_instance_healthy",
        "Whether it runs and is well.",
        each(|seen| f64::from(u8::from(seen.report.state == InstanceState::Healthy))),
    );
}

/// What the edge counted.
pub(super) fn requests(families: &mut Families, snapshot: &Snapshot, edge: &EdgeStats) {
    let counted: Vec<(Labels, &RequestStats)> = snapshot
        .instances
        .iter()
        .filter_map(|seen| {
            let stats = edge.instances.get(&seen.report.id)?;
            Some((labels(seen.report.id, seen.spec.as_ref()?), stats))
        })
        .collect();
    let by_class = counted.iter().flat_map(|(labels, stats)| {
        stats.by_class.iter().map(move |(class, &count)| {
            let mut labels = labels.clone();
            labels.push(("class", class.clone()));
            (labels, count as f64)
        })
    });
    families.counter("berth_http_requests_total", "Requests answered, by status class.", by_class);
    let in_flight = counted.iter().map(|(labels, stats)| (labels.clone(), f64::from(stats.in_flight)));
    families.gauge("berth_http_requests_in_flight", "Requests in flight.", in_flight);
    families.latency(
        "berth_http_request_duration_seconds",
        "From the request's head read to the response's end.",
        counted.iter().map(|(labels, stats)| (labels.clone(), *stats)),
    );
}

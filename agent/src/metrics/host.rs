//! Metrics of the host as a whole.

use std::collections::BTreeMap;

use berth_wire::edge::EdgeStats;
use berth_wire::report::HostFacts;

use super::families::Families;
use crate::reconcile::Snapshot;

/// What the host is and has.
pub(super) fn facts(families: &mut Families, facts: &HostFacts) {
    let rows: [(&str, &str, f64); 6] = [
        ("machine_cpu_cores", "Cores.", facts.cpu_millis as f64 / 1_000.0),
        ("machine_memory_bytes", "Memory.", facts.memory_bytes as f64),
        ("berth_host_memory_available_bytes", "Memory that can be had.", facts.memory_available_bytes as f64),
        (
            "berth_host_disk_bytes",
            "Size of the file system with the instances' roots.",
            facts.disk_bytes as f64,
        ),
        ("berth_host_disk_available_bytes", "Free bytes of it.", facts.disk_available_bytes as f64),
        (
            "berth_host_disk_reservable_bytes",
            "Bytes of it that the floors of instances may reserve.",
            facts.disk_reservable_bytes as f64,
        ),
    ];
    for (name, help, value) in rows {
        families.gauge(name, help, [(Vec::new(), value)]);
    }
}

/// What Berth does on it.
pub(super) fn berth(families: &mut Families, snapshot: &Snapshot, edge: &EdgeStats, edge_connected: bool) {
    let mut by_state: BTreeMap<String, u32> = BTreeMap::new();
    for seen in &snapshot.instances {
        *by_state.entry(format!("{:?}", seen.report.state).to_lowercase()).or_default() += 1;
    }
    let states = by_state.into_iter().map(|(state, n)| (vec![("state", state)], f64::from(n)));
    families.gauge("berth_instances", "Instances, by state.", states);
    let connected = f64::from(u8::from(edge_connected));
    families.gauge("berth_edge_connected", "Whether the edge is connected.", [(Vec::new(), connected)]);
    families.gauge(
        "berth_edge_connections",
        "Connections open at the edge.",
        [(Vec::new(), edge.connections as f64)],
    );
    let errors = edge.errors.iter().map(|(code, &n)| (vec![("code", code.clone())], n as f64));
    families.counter("berth_edge_errors_total", "Answers given by the edge itself, by code.", errors);
    let number = snapshot.generation.map_or(0, |generation| generation.number);
    families.gauge("berth_spec_generation", "Number of the spec in force.", [(Vec::new(), number as f64)]);
}

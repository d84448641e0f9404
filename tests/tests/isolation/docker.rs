//! What Docker's default permits, read from `data/`, and a container of runc's that is set up like it: the peer that tells whether
//! an attempt is worth anything.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Under which circumstances a call is permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Always,
    /// If the argument is one of these.
    In(usize, Vec<u64>),
    /// If the argument has none of these bits.
    Without(usize, u64),
}

fn lines(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let useful = text.lines().filter(|line| !line.starts_with('#'));
    useful.map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|words| !words.is_empty())
}

/// Docker's calls by name, with any of the conditions that permit them.
pub fn calls() -> BTreeMap<String, Vec<Condition>> {
    let mut calls: BTreeMap<String, Vec<Condition>> = BTreeMap::new();
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    for words in lines(include_str!("data/docker-calls.txt")) {
        match words.as_slice() {
            [name, index, "in", values @ ..] => {
                let values = values.iter().map(|text| number(text)).collect();
                calls.entry((*name).into()).or_default().push(Condition::In(number(index) as usize, values));
            }
            [name, index, "without", mask] => {
                let condition = Condition::Without(number(index) as usize, number(mask));
                calls.entry((*name).into()).or_default().push(condition);
            }
            names => calls.extend(names.iter().map(|name| ((*name).to_owned(), vec![Condition::Always]))),
        }
    }
    calls
}

/// Docker's capabilities: names by number.
pub fn capabilities() -> BTreeMap<u8, String> {
    let pairs = lines(include_str!("data/docker-capabilities.txt"));
    pairs.filter_map(|words| Some((words.get(1)?.parse().ok()?, (*words.first()?).to_owned()))).collect()
}

/// The filter in the form of the OCI runtime specification (1.2, config-linux.md, Seccomp).
pub fn seccomp() -> Value {
    let mut rules = Vec::new();
    for (name, conditions) in calls() {
        for condition in conditions {
            let mut allow = |arguments: Value| {
                rules.push(json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": arguments}));
            };
            match condition {
                Condition::Always => allow(json!([])),
                Condition::In(index, values) => {
                    for value in values {
                        allow(json!([{"index": index, "value": value, "op": "SCMP_CMP_EQ"}]));
                    }
                }
                Condition::Without(index, mask) => {
                    allow(
                        json!([{"index": index, "value": mask, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]),
                    );
                }
            }
        }
    }
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// Docker's masked and read-only paths.
pub const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

//! What the process knows about itself and sees of others.

use std::fs;

use super::{MALFORMED, Outcome, found, number};

unsafe extern "C" {
    fn getrlimit(resource: i32, limit: *mut [u64; 2]) -> i32;
}

pub fn attempt(name: &str, arguments: &[&str]) -> Option<Outcome> {
    let first = arguments.first().copied().unwrap_or_default();
    let second = arguments.get(1).copied().unwrap_or_default();
    Some(match name {
        // RESOURCE VALUE: another hard limit than this.
        "limit" => limit(first, second),
        // PID FIELD VALUE: another value in that line of its status. Init may still be on its way to its own program: it is given
        // a second.
        "status" => {
            let wanted = arguments.get(2).copied().unwrap_or_default();
            let differs = || status(first, second).trim_start_matches('0') != wanted;
            let until = std::time::Instant::now() + std::time::Duration::from_secs(1);
            while first == "1" && differs() && std::time::Instant::now() < until {
                std::thread::yield_now();
            }
            found(differs())
        }
        // KIND NUMBER: the same namespace as the host's.
        "namespace" => match fs::read_link(format!("/proc/self/ns/{first}")) {
            Ok(target) => found(target.to_string_lossy().contains(second)),
            Err(_) => Err(MALFORMED),
        },
        "spared when memory runs out" => {
            let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
            found(score.trim() != "500")
        }
        "root is root outside" => {
            let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            found(map.split_whitespace().nth(1) == Some("0"))
        }
        "host name" => {
            let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            found(name.trim() != "inside")
        }
        "other interfaces" => {
            let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
            found(text.lines().skip(2).any(|line| !line.trim_start().starts_with("lo:")))
        }
        "cgroup path of the host" => {
            let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            found(text.lines().any(|line| !line.ends_with(":/")))
        }
        "processes of the host" => {
            let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
            let numbers = processes.filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok());
            found(numbers.count() > 2)
        }
        // LABEL: it runs under another; "" where there are none.
        "another label" => {
            let current = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
            found(!current.contains(first))
        }
        "open descriptors" => {
            // The directory's own descriptor is the fourth.
            let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
            found(open.count() > 4)
        }
        "devices beside the usual" => devices(),
        _ => return None,
    })
}

fn limit(resource: &str, value: &str) -> Outcome {
    let (Ok(resource), Ok(value)) = (resource.parse(), value.parse::<u64>()) else { return Err(MALFORMED) };
    let mut limit = [0; 2];
    // SAFETY: two numbers that the kernel fills.
    number(unsafe { getrlimit(resource, &mut limit) }.into())?;
    found(limit[1] != value)
}

fn status(pid: &str, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).unwrap_or("unreadable").to_owned()
}

fn devices() -> Outcome {
    let usual = [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin", "stdout", "stderr",
    ];
    let there = fs::read_dir("/dev").into_iter().flatten().flatten();
    found(there.map(|entry| entry.file_name()).any(|name| !usual.contains(&name.to_string_lossy().as_ref())))
}

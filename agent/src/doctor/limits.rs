//! Limits of the whole machine that many containers share. The numbers are for 1,000 containers.
//! The neighbour table's gc_thresh is not among them: permanent entries, the only ones Berth makes, do not count against it
//! (since kernel 4.20; 3,000 of them were seen to fit under a threshold of 1,024).

use berth_wire::code::Code;

use super::{Finding, content};

/// A sysctl and the least it should be.
struct Limit {
    subject: &'static str,
    sysctl: &'static str,
    least: u64,
    /// What goes wrong below, and why the number.
    loss: &'static str,
}

const LIMITS: [Limit; 4] = [
    Limit {
        subject: "inotify instances",
        sysctl: "fs.inotify.max_user_instances",
        least: 8_192,
        loss: "all containers' watchers count as one user's: apps that reload on change fail to start",
    },
    Limit {
        subject: "process ids",
        sysctl: "kernel.pid_max",
        least: 262_144,
        loss: "a thousand default pids quotas do not fit: forks fail in apps that are within their quota",
    },
    Limit {
        subject: "open files",
        sysctl: "fs.file-max",
        least: 262_144,
        loss: "apps within their own limits fail to open files",
    },
    Limit {
        subject: "connection tracking",
        sysctl: "net.netfilter.nf_conntrack_max",
        least: 65_536,
        loss: "connections of all apps are dropped when one opens too many",
    },
];

/// Descriptors the agent keeps: 6 for sampling, 4 for the launcher's and the log's, of each of 1,000 containers, and room.
const DESCRIPTORS_LEAST: u64 = 16_384;

pub(super) fn checks() -> Vec<Finding> {
    let mut findings: Vec<Finding> = LIMITS.iter().filter_map(limit).collect();
    findings.push(descriptors());
    findings
}

/// Nothing if the kernel has no such limit (connection tracking before its first use).
fn limit(limit: &Limit) -> Option<Finding> {
    let path = format!("/proc/sys/{}", limit.sysctl.replace('.', "/"));
    let value: u64 = content(path)?.parse().ok()?;
    Some(judge(limit, value))
}

fn judge(limit: &Limit, value: u64) -> Finding {
    let Limit { subject, sysctl, least, loss } = limit;
    if value >= *least {
        return Finding::good(subject, value.to_string());
    }
    let sentence = format!("{sysctl} is {value}; {loss}; run sysctl -w {sysctl}={least}");
    Finding::warning(subject, Code::D17, sentence)
}

fn descriptors() -> Finding {
    let subject = "the agent's open files";
    let hard = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map_or(0, |(_, hard)| hard);
    if hard >= DESCRIPTORS_LEAST {
        return Finding::good(subject, hard.to_string());
    }
    let sentence = format!(
        "its hard limit is {hard}; more than {} containers exhaust it; set LimitNOFILE=1048576",
        hard / 12
    );
    Finding::warning(subject, Code::D17, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn a_low_limit_must_say_what_to_run() {
        let finding = judge(&LIMITS[0], 128);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.sentence.ends_with("run sysctl -w fs.inotify.max_user_instances=8192"), "{finding}");
        assert_eq!(judge(&LIMITS[0], 8_192).severity, Severity::Good);
    }
}

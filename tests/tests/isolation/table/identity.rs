//! Who a container is: users, capabilities, limits, namespaces, descriptors.

use std::fs;

use berth_agent::cgroup::{Mode, mode};
use berth_agent::launch::security_label;
use berth_wire::launch::{Resource, SecurityLabel, Step};

use super::{APP, Case, FINE, Peer, ROOT, capabilities, case, filter, privilege};

pub(super) fn cases() -> Vec<Case> {
    [namespaces(), sets(), limits(), others()].concat()
}

type Choice = fn(&Step) -> bool;

/// The host's number of each namespace, which must not be the container's. Those that the launcher's clone makes have no step.
fn namespaces() -> Vec<Case> {
    let kinds: [(&str, Option<Choice>); 7] = [
        ("user", Some(|s| matches!(s, Step::EnterUser { .. }))),
        ("net", Some(|s| matches!(s, Step::EnterNetwork { .. }))),
        ("cgroup", Some(|s| matches!(s, Step::UnshareCgroup))),
        ("mnt", None),
        ("pid", None),
        ("ipc", None),
        ("uts", None),
    ];
    let rows = kinds.into_iter().map(|(kind, step)| {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        let row = case("namespace", APP, FINE).named(format!("share the host's {kind} namespace"));
        let row = row.with([kind.to_owned(), own.to_string_lossy().into_owned()]);
        let row = if kind == "user" { row.peer(Peer::Succeeds) } else { row };
        match step {
            Some(step) => row.by(step),
            None => row,
        }
    });
    rows.collect()
}

/// Capability sets by their line in /proc/PID/status. CVE-2022-24769 was about the inheritable one: the suite's launcher has all
/// capabilities there, so that it shows whether they get through.
fn sets() -> Vec<Case> {
    let status = |name: &str, user, pid: &str, field: &str, value: &str| {
        case("status", user, FINE).named(name).with([pid, field, value])
    };
    let none = |name: &str, user, field: &str| status(name, user, "self", field, "");
    let no_init = Peer::Not("it has no init");
    vec![
        none("an app's bounding set", APP, "CapBnd:")
            .by(|s| matches!(s, Step::Bounding { .. }))
            .peer(Peer::Succeeds),
        none("root's effective set", ROOT, "CapEff:").by(capabilities).peer(Peer::Succeeds),
        none("root's permitted set", ROOT, "CapPrm:").by(capabilities).peer(Peer::Succeeds),
        none("the inheritable set", APP, "CapInh:").by(privilege),
        none("the ambient set", APP, "CapAmb:"),
        status("init's inheritable set", APP, "1", "CapInh:", ""),
        status("init's ambient set", APP, "1", "CapAmb:", ""),
        status("init's permitted set", APP, "1", "CapPrm:", "").peer(no_init),
        status("init's permitted set under root", ROOT, "1", "CapPrm:", "").peer(no_init),
        status("no_new_privs", ROOT, "self", "NoNewPrivs:", "1").by(capabilities).peer(Peer::Succeeds),
        status("the filter", APP, "self", "Seccomp:", "2").by(filter),
        status("init's filter", APP, "1", "Seccomp:", "2").by(filter),
    ]
}

/// Numbers of asm-generic/resource.h.
fn limits() -> Vec<Case> {
    let limit = |name: &str, number: u32, value: u64, resource: Resource| {
        // Where the launcher's own is lower and may not be raised, that one stays.
        let own = hard_limit(number);
        let row = case("limit", APP, FINE).named(name).with([u64::from(number), value.min(own)]);
        let row = row.peer(Peer::Not("its limits are its caller's"));
        if own > value {
            row.by(move |s| matches!(s, Step::Limit { resource: r, .. } if *r == resource))
        } else {
            println!("not shown with its step off: {name}, because it is {own} here anyhow");
            row
        }
    };
    vec![
        limit("the core limit", 4, 0, Resource::Core),
        limit("the limit of open files", 7, 65_536, Resource::OpenFiles),
        limit("the limit of locked memory", 8, 8 << 20, Resource::LockedMemory),
        limit("the limit of message queues", 12, 819_200, Resource::MessageQueue),
        forks(),
    ]
}

/// On v2 a container is born in its group: there is no step without which it would not be.
fn forks() -> Case {
    let row = case("fork without end", APP, FINE);
    if matches!(mode(), Ok(Mode::Unified)) {
        return row;
    }
    row.by(|s| matches!(s, Step::JoinLegacyCgroup { .. } | Step::Limit { resource: Resource::Processes, .. }))
}

/// This process's own, which a launcher that it starts has, too.
fn hard_limit(number: u32) -> u64 {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let name = match number {
        4 => "Max core file size",
        6 => "Max processes",
        7 => "Max open files",
        8 => "Max locked memory",
        _ => "Max msgqueue size",
    };
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

fn others() -> Vec<Case> {
    vec![
        case("root is root outside", APP, FINE)
            .by(|s| matches!(s, Step::EnterUser { .. }))
            .peer(Peer::Succeeds),
        case("spared when memory runs out", APP, FINE)
            .by(|s| matches!(s, Step::OomScoreAdjust { .. }))
            .peer(Peer::Succeeds),
        case("host name", APP, FINE).by(|s| matches!(s, Step::Hostname { .. })),
        case("other interfaces", APP, FINE).by(|s| matches!(s, Step::EnterNetwork { .. })),
        case("cgroup path of the host", APP, FINE).by(|s| matches!(s, Step::UnshareCgroup)),
        case("processes of the host", APP, FINE),
        case("open descriptors", APP, FINE),
        label(),
        case("run a set-user-ID program", APP, FINE)
            .with(["/bin/root-probe"])
            .by(|s| matches!(s, Step::NoSetuid { .. } | Step::NoNewPrivileges) || capabilities(s))
            .peer(Peer::Succeeds),
    ]
}

/// What the host's security module calls it; where there is none, there is nothing to be called.
fn label() -> Case {
    let named =
        case("another label", APP, FINE).peer(Peer::Not("it runs under a profile of its own, or none"));
    match security_label() {
        Some(SecurityLabel::AppArmor { profile }) => {
            named.with([format!("{profile} (enforce)")]).by(super::label)
        }
        None => {
            println!("not tried: AppArmor is not on here");
            named.with([""])
        }
    }
}

//! What an installation has on this machine while it runs, against what its spec says: every part of every instance once, and nothing
//! else. Counted from outside, by name: control groups, writable spaces, addresses, interfaces, what launcher and agent keep on
//! disk, and the descriptors and zombies that they hold. `leaks` counts what is left when an installation has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_agent::container::READY_MAX;
use berth_agent::ledger::Ledger;
use berth_wire::id::{HostId, InstanceId};
use berth_wire::spec::{Desired, InstanceSpec, Spec, Work};

use crate::daemons::links;
use crate::installation::{Installation, eventually};

/// Something that every running instance has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    name: String,
    /// Whether the agent makes it ahead.
    ahead: bool,
}

/// Who has which part.
type Parts = BTreeMap<Part, BTreeSet<String>>;

/// How long a host may take to become what its spec says.
const CONVERGE_MAX: Duration = Duration::from_secs(60);

/// Everything that is not as the spec says: nothing, once the host has converged. Parts that the agent made ahead belong to no
/// instance yet: each is complete but for what makes it a container, and there are no more than the agent keeps.
pub fn differences(berth: &Installation) -> Vec<String> {
    let spec = match spec(berth) {
        Ok(spec) => spec,
        Err(error) => return vec![error],
    };
    let known: BTreeSet<String> = spec.instances.iter().map(|i| i.id.to_string()).collect();
    let runs = |i: &&InstanceSpec| i.desired == Desired::Run && matches!(i.work, Work::Service(_));
    let wanted: BTreeSet<String> = spec.instances.iter().filter(runs).map(|i| i.id.to_string()).collect();
    let parts = parts(berth);
    let ahead = made_ahead(&parts, &known);
    let mut wrong = Vec::new();
    for (part, have) in &parts {
        let strays = have.iter().filter(|id| !known.contains(*id) && !ahead.contains(*id));
        wrong.extend(strays.map(|id| format!("{} of {id}, which the spec does not name", part.name)));
        wrong.extend(wanted.difference(have).map(|id| format!("{id} has no {}", part.name)));
    }
    if ahead.len() > READY_MAX {
        wrong.push(format!("{} parts made ahead: at most {READY_MAX} are right", ahead.len()));
    }
    wrong.extend(identities(berth));
    wrong.extend(descriptors(berth, &known, ahead.len()));
    wrong.extend(zombies(berth));
    wrong.extend(singles(berth));
    wrong
}

/// Who has every part that is made ahead and no other.
fn made_ahead(parts: &Parts, known: &BTreeSet<String>) -> BTreeSet<String> {
    let all: BTreeSet<&String> = parts.values().flatten().filter(|id| !known.contains(*id)).collect();
    let complete = |id: &&&String| parts.iter().all(|(part, have)| have.contains(**id) == part.ahead);
    all.iter().filter(complete).map(|id| (*id).clone()).collect()
}

/// Waits until the host is what its spec says; the differences after a minute otherwise.
///
/// # Errors
/// One line for each difference.
pub fn converge(berth: &Installation) -> Result<(), String> {
    let mut wrong = Vec::new();
    let good = eventually(CONVERGE_MAX, || {
        wrong = differences(berth);
        wrong.is_empty()
    });
    if good { Ok(()) } else { Err(wrong.join("\n")) }
}

/// The spec in force, as the agent keeps it.
fn spec(berth: &Installation) -> Result<Spec, String> {
    let agent = berth.data.join("agent");
    let host = fs::read_to_string(agent.join("host.id")).map_err(|e| format!("host.id: {e}"))?;
    let host: HostId = host.trim().parse().map_err(|e| format!("host.id: {e}"))?;
    let ledger = Ledger::open(&agent, host).map_err(|e| format!("the ledger: {e}"))?;
    let spec = ledger.subscribe().borrow().clone();
    spec.map(|spec| (*spec).clone()).ok_or_else(|| "the agent has no spec".to_owned())
}

fn parts(berth: &Installation) -> Parts {
    let mut parts = Parts::new();
    let mut add = |name: String, ahead, have| drop(parts.insert(Part { name, ahead }, have));
    for (parent, legacy) in control_groups(&berth.id) {
        add(format!("control group in {}", parent.display()), legacy, named(&parent, ""));
    }
    let (agent, launcher) = (berth.data.join("agent"), berth.data.join("launcher"));
    let addresses = Path::new("/run/berth").join(&berth.id).join("network");
    add("writable space".into(), true, named(&agent.join("pool/instances"), ""));
    add("memory of the agent".into(), false, named(&agent.join("instances"), ".json"));
    add("directory of the launcher".into(), false, named(&launcher.join("instances"), ""));
    add("address".into(), true, named(&addresses, ""));
    add("interface".into(), true, interfaces(&berth.id, &addresses));
    parts
}

/// The names in a directory, without the ending; those that are no instance's are named in full.
fn named(dir: &Path, ending: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter_map(|n| instance_or_odd(&n, ending))
        .collect()
}

/// A control group has files beside its children, which have no dash in them where an instance has.
fn instance_or_odd(name: &str, ending: &str) -> Option<String> {
    let id = name.strip_suffix(ending).unwrap_or(name);
    let file_of_the_kernel =
        id.parse::<InstanceId>().is_err() && (id.contains('.') || !id.contains('-')) && ending.is_empty();
    (!file_of_the_kernel).then(|| id.to_owned())
}

/// The parent groups of the installation, wherever one of that name is, and whether its hierarchy is one of v1.
fn control_groups(id: &str) -> Vec<(PathBuf, bool)> {
    let name = format!("berth-{id}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = |line: &str| line.split(' ').nth(4).map(|point| Path::new(point).join(&name));
    let cgroup = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let parents = cgroup.filter_map(|line| Some((point(line)?, line.contains(" - cgroup "))));
    parents
        .filter(|(parent, _)| parent.is_dir() && !parent.display().to_string().contains("/devices/"))
        .collect()
}

/// An interface is called by the offset of its address in the installation's block; those of no address are named in full.
fn interfaces(id: &str, addresses: &Path) -> BTreeSet<String> {
    let Ok(installation) = berth_agent::installation::Installation::new(id) else { return BTreeSet::new() };
    let (prefix, base) = (installation.interface_prefix(), u32::from(installation.address_block().base));
    let owners = fs::read_dir(addresses).into_iter().flatten().flatten().filter_map(|entry| {
        let address: Ipv4Addr = fs::read_to_string(entry.path()).ok()?.trim().parse().ok()?;
        let offset = u32::from(address).checked_sub(base)?;
        Some((format!("{prefix}{offset:x}"), entry.file_name().to_string_lossy().into_owned()))
    });
    let owners: BTreeMap<String, String> = owners.collect();
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with(&prefix))
        .map(|name| owners.get(&name).cloned().unwrap_or(name))
        .collect()
}

/// No two containers may have the same user ids.
fn identities(berth: &Installation) -> Vec<String> {
    let mut owners: BTreeMap<u64, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for dir in fs::read_dir(berth.data.join("launcher/instances")).into_iter().flatten().flatten() {
        let text = fs::read(dir.path().join("meta.json")).unwrap_or_default();
        let meta: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let (Some(base), name) = (meta["uid_base"].as_u64(), dir.file_name().to_string_lossy().into_owned())
        else {
            continue;
        };
        if let Some(other) = owners.insert(base, name.clone()) {
            wrong.push(format!("{name} and {other} have the same user ids, from {base}"));
        }
    }
    wrong
}

/// Descriptors of containers that are gone, or of their making, in the agent and the launcher. Parts made ahead are a user and a
/// network namespace each.
fn descriptors(berth: &Installation, known: &BTreeSet<String>, ahead: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for daemon in ["agent", "launcher"] {
        let links = links(berth.daemon(daemon));
        let of_the_gone = |link: &&String| {
            let named = |part: &str| part.parse::<InstanceId>().is_ok() && !known.contains(part);
            link.contains(&berth.id) && !link.contains("/logs/") && link.split('/').any(named)
        };
        let of_a_launch = |link: &&String| {
            ["/memfd:berth-plan", "/memfd:berth-command"].iter().any(|kind| link.starts_with(kind))
        };
        let held = links.iter().filter(|link| of_the_gone(link) || of_a_launch(link));
        wrong.extend(held.map(|link| format!("{daemon} holds {link}")));
        let right = if daemon == "agent" { ahead } else { 0 };
        for kind in ["net:[", "user:["] {
            let count = links.iter().filter(|link| link.starts_with(kind)).count();
            if count != right {
                wrong.push(format!("{daemon} holds {count} of {kind}: {right} are right"));
            }
        }
    }
    let alive = alive(berth);
    let pidfds = links(berth.daemon("launcher")).iter().filter(|link| link.contains("[pidfd]")).count();
    // A process may be parked for each set of parts made ahead.
    if pidfds < alive + 1 || pidfds > alive + 1 + ahead {
        wrong.push(format!("the launcher watches {pidfds} processes: {alive} containers, the edge, at most {ahead} parked are right"));
    }
    wrong
}

/// How many containers the launcher remembers whose end it has not seen.
fn alive(berth: &Installation) -> usize {
    let dirs = fs::read_dir(berth.data.join("launcher/instances")).into_iter().flatten().flatten();
    dirs.filter(|dir| !dir.path().join("exit.json").exists()).count()
}

/// Children that ended and were not reaped.
fn zombies(berth: &Installation) -> Vec<String> {
    let parents = [berth.daemon("agent"), berth.daemon("launcher")].map(|pid| pid.to_string());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let zombie = |stat: &String| {
        let mut fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
        fields.next() == Some("Z") && fields.next().is_some_and(|parent| parents.iter().any(|p| p == parent))
    };
    stats.filter(zombie).map(|stat| format!("not reaped: {}", stat.trim())).collect()
}

/// What there must be exactly once: the pool's mount and loop device, the nft table.
fn singles(berth: &Installation) -> Vec<String> {
    let things = crate::leaks::Leaks::of(&berth.id);
    let wrong = |kind: &str| {
        let count = things.count(kind);
        (count != 1).then(|| format!("{count} of {kind}: one is right"))
    };
    ["mount", "loop device", "nft table"].into_iter().filter_map(wrong).collect()
}

//! Files: masked, read-only, of devices, of init.

use std::fs;

use berth_wire::launch::Step;

use super::{APP, Case, FINE, Peer, ROOT, case};
use crate::docker::MASKED;

pub(super) fn cases() -> Vec<Case> {
    [masked(), read_only(), devices(), init()].concat()
}

/// At least what Docker covers must not be seen. A path that this host's kernel does not have cannot show what its mask is good for.
fn masked() -> Vec<Case> {
    let throttle = "/sys/devices/system/cpu/cpu0/thermal_throttle";
    let rows = MASKED.into_iter().chain([throttle]).map(|path| {
        let row = case("see", APP, FINE).named(format!("see {path}")).with([path]);
        if path == "/proc/keys" {
            // Only root of the host has keys to see.
            let mask = |s: &Step| matches!(s, Step::Mask { path } if path == "/proc/keys");
            Case { user: ROOT, ..row.by(move |s| mask(s) || matches!(s, Step::EnterUser { .. })) }
        } else if has_content(path) {
            row.by(move |s| matches!(s, Step::Mask { path: masked } if masked == path))
        } else {
            println!("not shown with its mask off: {path} is not on this host, or empty");
            row
        }
    });
    rows.collect()
}

fn has_content(path: &str) -> bool {
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => fs::read_dir(path).is_ok_and(|mut list| list.next().is_some()),
        Ok(_) => true,
        Err(_) => false,
    }
}

/// What must not be changed: the refusal of a read-only mount comes before that of permissions.
const READ_ONLY: [&str; 7] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys", "/sys/fs/cgroup"];

/// runc on cgroup v1 has a tmpfs of its own there, which holds nothing but the mount points of the hierarchies.
const OWN_TMPFS: Peer = Peer::Not("its /sys/fs/cgroup is not a hierarchy");

fn read_only() -> Vec<Case> {
    let mut rows = Vec::new();
    for path in READ_ONLY {
        if fs::metadata(path).is_err() {
            println!("not tried: {path} is not on this host");
            continue;
        }
        let row = case("chmod", ROOT, libc::EROFS).named(format!("change {path}")).with([path]);
        let row = if path == "/sys/fs/cgroup" { row.peer(OWN_TMPFS) } else { row };
        rows.push(row.by(move |s| matches!(s, Step::ReadOnly { path: kept } if kept == path)));
    }
    let only = |kept: &'static str| move |s: &Step| matches!(s, Step::ReadOnly { path } if path == kept);
    rows.extend([
        case("write", ROOT, libc::EROFS)
            .named("write /proc/sys")
            .with(["/proc/sys/net/ipv4/ip_unprivileged_port_start", "80"])
            .by(only("/proc/sys")),
        case("make a directory", ROOT, libc::EROFS)
            .named("make a cgroup")
            .with(["/sys/fs/cgroup/new"])
            .peer(OWN_TMPFS)
            .by(only("/sys/fs/cgroup")),
    ]);
    rows
}

fn devices() -> Vec<Case> {
    vec![
        case("open", APP, libc::EACCES)
            .named("open a device of the image")
            .with(["/node"])
            .by(|s| matches!(s, Step::NoDevices { .. }))
            .peer(Peer::Succeeds),
        // runc gives a console, an mqueue and a core beside the usual.
        case("devices beside the usual", APP, FINE).peer(Peer::Succeeds),
    ]
}

/// Init is executed from a file that nobody may read, so nothing of it can be opened, not even by root inside.
fn init() -> Vec<Case> {
    let no_init = Peer::Not("it has no init");
    vec![
        case("open", ROOT, libc::EACCES).named("open init's memory").with(["/proc/1/mem"]).peer(no_init),
        case("open", ROOT, libc::EACCES).named("open init's program").with(["/proc/1/exe"]).peer(no_init),
        case("list", ROOT, libc::EACCES).named("list init's descriptors").with(["/proc/1/fd"]).peer(no_init),
        case("open", ROOT, libc::EACCES).named("open init's root").with(["/proc/1/root/."]).peer(no_init),
        case("open", ROOT, libc::EACCES).named("open init's directory").with(["/proc/1/cwd/."]).peer(no_init),
    ]
}

//! System calls. Arguments are such that the kernel itself would refuse in another way, or not at all.

use super::{APP, Case, EPERM, FINE, Peer, ROOT, case, filter, privilege};

const BAD_FD: i64 = -1;

/// A call with these arguments that the filter refuses with EPERM, and would not reach with another errno without it.
fn call(name: &str, number: i64, arguments: &[i64]) -> Case {
    case("call", APP, EPERM).named(name).with([&[number], arguments].concat()).by(filter)
}

/// The same, where only root of the host gets past what the kernel asks for before it looks at the arguments.
fn as_root(name: &str, number: i64, arguments: &[i64]) -> Case {
    Case { user: ROOT, ..call(name, number, arguments).by(privilege) }
}

pub(super) fn cases() -> Vec<Case> {
    [namespaces(), sockets(), kernel(), mounts(), foreign()].concat()
}

/// linux/sched.h.
const NAMESPACES: [(&str, i64); 7] = [
    ("mount", 0x0002_0000),
    ("cgroup", 0x0200_0000),
    ("uts", 0x0400_0000),
    ("ipc", 0x0800_0000),
    ("user", 0x1000_0000),
    ("pid", 0x2000_0000),
    ("network", 0x4000_0000),
];

/// None is made inside. Behind the filter stands that the user namespace may have none below it (ENOSPC), and for all others that
/// there is no capability to.
fn namespaces() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, flag) in NAMESPACES {
        let own = call(&format!("unshare a {name} namespace"), libc::SYS_unshare, &[flag]);
        let child = call(&format!("clone into a {name} namespace"), libc::SYS_clone, &[flag | 17]);
        cases.extend(if name == "user" {
            [own.behind(libc::ENOSPC), child.behind(libc::ENOSPC)]
        } else {
            // Only root of the host may, so it takes more than the filter's removal to see it succeed.
            [own, child].map(|case| Case { user: ROOT, ..case.by(privilege) })
        });
    }
    let clone3 = call("clone3", libc::SYS_clone3, &[0, 0]);
    cases.push(Case { refusal: berth_wire::report::Exit::Code(libc::ENOSYS as u8), ..clone3 });
    cases.push(call("enter another namespace", libc::SYS_setns, &[BAD_FD, 0]));
    cases
}

fn sockets() -> Vec<Case> {
    let socket = |name: &str, family, kind, protocol| call(name, libc::SYS_socket, &[family, kind, protocol]);
    // Docker's root has CAP_NET_RAW.
    let raw = |name: &str, family, protocol| Case {
        user: ROOT,
        ..socket(name, family, 3, protocol).by(privilege).peer(Peer::Succeeds)
    };
    vec![
        socket("socket AF_ALG", 38, 5, 0),
        socket("socket AF_ALG with bits above the 32nd", 0x1_0000_0000 + 38, 5, 0),
        socket("socket AF_VSOCK", 40, 1, 0),
        socket("socket AF_CAN", 29, 3, 1).peer(Peer::Held),
        socket("socket AF_BLUETOOTH", 31, 5, 0),
        // Behind the filter stands that it takes a capability, where the kernel has the family.
        Case { user: ROOT, ..socket("socket AF_KEY", 15, 3, 2).by(privilege) },
        raw("socket AF_PACKET", 17, 3),
        raw("socket of raw IPv4", 2, 1),
        raw("socket of raw IPv6", 10, 58),
    ]
}

fn kernel() -> Vec<Case> {
    vec![
        case("call with a page", APP, EPERM)
            .named("io_uring")
            .with([libc::SYS_io_uring_setup, 2, 1])
            .by(filter),
        call("io_uring_enter", libc::SYS_io_uring_enter, &[BAD_FD, 0, 0, 0]),
        call("io_uring_register", libc::SYS_io_uring_register, &[BAD_FD, 0, 0, 0]),
        as_root("bpf", libc::SYS_bpf, &[9_999, 0, 0]),
        call("perf_event_open", libc::SYS_perf_event_open, &[0, 0, -1, BAD_FD, 0]),
        call("keyctl", libc::SYS_keyctl, &[0, -3, 1]),
        call("add_key", libc::SYS_add_key, &[0, 0, 0, 0, -3]),
        call("request_key", libc::SYS_request_key, &[0, 0, 0, 0]),
        call("userfaultfd", libc::SYS_userfaultfd, &[1]),
        as_root("fanotify_init", libc::SYS_fanotify_init, &[0xffff, 0]),
        as_root("open_by_handle_at", libc::SYS_open_by_handle_at, &[BAD_FD, 0, 0]),
        as_root("init_module", libc::SYS_init_module, &[0, 0, 0]),
        as_root("finit_module", libc::SYS_finit_module, &[BAD_FD, 0, 0]),
        as_root("kexec_load", libc::SYS_kexec_load, &[0, 17, 0, 0]),
        as_root("reboot", libc::SYS_reboot, &[0, 0, 0, 0]),
        as_root("swapon", libc::SYS_swapon, &[0, 0]),
        as_root("syslog", libc::SYS_syslog, &[10, 0, 0]),
        as_root("settimeofday", libc::SYS_settimeofday, &[1, 0]),
        as_root("clock_settime", libc::SYS_clock_settime, &[0, 0]),
        call("personality READ_IMPLIES_EXEC", libc::SYS_personality, &[0x040_0000]),
        call("put characters into a terminal", libc::SYS_ioctl, &[BAD_FD, 0x5412, 0]),
        call("read another's descriptors", libc::SYS_pidfd_getfd, &[BAD_FD, 0, 0]),
        call("kcmp", libc::SYS_kcmp, &[0, 0, 99, 0, 0]),
        call("process_madvise", libc::SYS_process_madvise, &[BAD_FD, 0, 0, 0, 0]),
        call("move_pages", libc::SYS_move_pages, &[0, 1, 0, 0, 0, 0xff]),
        // A second filter of its own is Docker's to allow.
        call("seccomp", libc::SYS_seccomp, &[9, 0, 0]),
        Case { user: ROOT, ..case("call", ROOT, EPERM) }
            .named("trace init")
            .with([libc::SYS_ptrace, 16, 1, 0, 0])
            .peer(Peer::Not("it has no init")),
        case("kill init", ROOT, FINE),
    ]
}

/// The mount namespace belongs to the host's user namespace: no capability inside reaches it.
fn mounts() -> Vec<Case> {
    let mount = |name: &str, kind: &str, options: &str| {
        case("mount", ROOT, EPERM).named(name).with([kind, options]).by(privilege)
    };
    vec![
        mount("mount a tmpfs", "tmpfs", ""),
        // CVE-2022-0492: with it comes a release_agent.
        mount("mount cgroup v1", "cgroup", "memory"),
        mount("mount cgroup v2", "cgroup2", ""),
        mount("mount proc", "proc", ""),
        call("umount", libc::SYS_umount2, &[0, 0]),
        as_root("pivot_root", libc::SYS_pivot_root, &[0, 0]),
        call("chroot", libc::SYS_chroot, &[0]).peer(Peer::Held),
        as_root("move_mount", libc::SYS_move_mount, &[BAD_FD, 0, BAD_FD, 0, 0xffff]),
        call("open_tree", libc::SYS_open_tree, &[BAD_FD, 0, 0]),
        call("mount_setattr", libc::SYS_mount_setattr, &[BAD_FD, 0, 0, 0, 0]),
        as_root("fsopen", libc::SYS_fsopen, &[0, 0]),
        case("make a device", ROOT, EPERM).by(privilege).peer(Peer::Succeeds),
    ]
}

/// 32-bit and x32 programs are killed.
fn foreign() -> Vec<Case> {
    if !cfg!(target_arch = "x86_64") {
        return vec![];
    }
    let interrupt = |name: &str, arguments: &[i64]| {
        case("call by the 32-bit ABI", APP, 0).killed().named(name).with(arguments).by(filter)
    };
    const X32: i64 = 0x4000_0000;
    let x32 =
        |name: &str, arguments: &[i64]| case("call", APP, 0).killed().named(name).with(arguments).by(filter);
    vec![
        interrupt("the 32-bit ABI", &[20]).peer(Peer::Succeeds),
        // CVE-2026-31431; 359 is socket(2) of i386. What runc makes of it is the filter's file here, which knows one socket rule.
        interrupt("socket AF_ALG by the 32-bit ABI", &[359, 38, 5, 0]),
        x32("the x32 ABI", &[X32 | libc::SYS_getpid]),
        x32("socket AF_ALG by the x32 ABI", &[X32 | libc::SYS_socket, 38, 5, 0]),
    ]
}

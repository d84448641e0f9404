//! The attempts: what is tried, as whom, how the kernel must refuse, and which step's removal lets it succeed.

use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use berth_agent::container::Capabilities;
use berth_wire::launch::{Resource, Step};
use berth_wire::report::Exit;

use crate::stage::{Attempt, Stage};

/// The probe found nothing to complain of.
const FINE: i32 = 200;
const EPERM: i32 = libc::EPERM;
const EACCES: i32 = libc::EACCES;
const EROFS: i32 = libc::EROFS;

/// One row.
pub struct Case {
    pub name: &'static str,
    user: u32,
    refusal: Refusal,
    /// Which steps protect; none where it is the order of things rather than a step.
    step: Option<fn(&Step) -> bool>,
}

/// How an attempt ends as shipped.
#[derive(Clone, Copy)]
enum Refusal {
    /// With this errno (or [`FINE`]).
    Errno(i32),
    /// By this signal.
    Signal(u8),
}

const fn case(name: &'static str, user: u32, errno: i32, step: Option<fn(&Step) -> bool>) -> Case {
    Case { name, user, refusal: Refusal::Errno(errno), step }
}

const APP: u32 = 1_000;
const ROOT: u32 = 0;

fn filter(step: &Step) -> bool {
    matches!(step, Step::Seccomp { .. })
}

fn capabilities(step: &Step) -> bool {
    matches!(
        step,
        Step::Bounding { .. } | Step::Capabilities { .. } | Step::NoNewPrivileges | Step::Seccomp { .. }
    )
}

fn masked(step: &Step, masked: &str) -> bool {
    matches!(step, Step::Mask { path } if path == masked)
}

fn read_only(step: &Step, place: &str) -> bool {
    matches!(step, Step::ReadOnly { path } if path == place)
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("clone a user namespace", APP, EPERM, None),
        case("nested user namespace", APP, EPERM, None),
        case("clone3", APP, libc::ENOSYS, Some(filter)),
        case("keyctl", APP, EPERM, Some(filter)),
        case("io_uring", APP, EPERM, Some(filter)),
        case("userfaultfd", APP, EPERM, Some(filter)),
        case("AF_ALG", APP, EPERM, Some(filter)),
        case("AF_VSOCK", APP, EPERM, Some(filter)),
        case("AF_PACKET", ROOT, EPERM, Some(capabilities)),
        case("raw socket", ROOT, EPERM, Some(capabilities)),
        case("core dump", APP, FINE, Some(|s| matches!(s, Step::Limit { resource: Resource::Core, .. }))),
        case("spared when memory runs out", APP, FINE, Some(|s| matches!(s, Step::OomScoreAdjust { .. }))),
        case("no_new_privs is off", ROOT, FINE, Some(capabilities)),
        case("no filter", APP, FINE, Some(filter)),
        case("bounding set", APP, FINE, Some(|s| matches!(s, Step::Bounding { .. }))),
        case("effective set", ROOT, FINE, Some(capabilities)),
        case("inheritable and ambient sets", ROOT, FINE, None),
        case("root is root outside", APP, FINE, Some(|s| matches!(s, Step::EnterUser { .. }))),
        case("host name", APP, FINE, Some(|s| matches!(s, Step::Hostname { .. }))),
        case("other interfaces", APP, FINE, Some(|s| matches!(s, Step::EnterNetwork { .. }))),
        case("cgroup path of the host", APP, FINE, Some(|s| matches!(s, Step::UnshareCgroup))),
        case("processes of the host", APP, FINE, None),
        case("read /proc/interrupts", APP, FINE, Some(|s| masked(s, "/proc/interrupts"))),
        case("list /sys/firmware", APP, FINE, Some(|s| masked(s, "/sys/firmware"))),
        case("write /proc/sys", ROOT, EROFS, Some(|s| read_only(s, "/proc/sys"))),
        case("write /sys", ROOT, EROFS, Some(|s| read_only(s, "/sys"))),
        case("make a cgroup", ROOT, EROFS, Some(|s| read_only(s, "/sys/fs/cgroup"))),
        case("open a device of the image", APP, EACCES, Some(|s| matches!(s, Step::NoDevices { .. }))),
        case("make a device", ROOT, EPERM, None),
        case("mount", ROOT, EPERM, None),
        case("mount cgroup v1", ROOT, EPERM, None),
        case("trace init", ROOT, EPERM, None),
        case("read init's memory", ROOT, EACCES, None),
        case("init's program", ROOT, EACCES, None),
        case("init's descriptors", ROOT, EACCES, None),
        case("kill init", ROOT, FINE, None),
        case("open descriptors", APP, FINE, None),
        case("devices beside the usual", APP, FINE, None),
        case("fork without end", APP, FINE, None),
    ];
    if cfg!(target_arch = "x86_64") {
        let refusal = Refusal::Signal(libc::SIGSYS as u8);
        cases.push(Case { name: "32-bit ABI", user: APP, refusal, step: Some(filter) });
    }
    cases
}

/// Attacks twice.
pub async fn check(stage: &Stage, case: &Case) -> Result<(), String> {
    let attempt = Attempt::new(case.name, case.user);
    let expected = match case.refusal {
        Refusal::Errno(errno) => Exit::Code(errno as u8),
        Refusal::Signal(signal) => Exit::Signal(signal),
    };
    let shipped = stage.attempt(&attempt, |plan| plan).await.map_err(|error| error.to_string())?;
    if shipped != expected {
        return Err(format!("as shipped: {shipped:?}, not {expected:?}"));
    }
    let Some(step) = case.step else { return Ok(()) };
    let open = stage.attempt(&attempt, |plan| plan.without(step)).await.map_err(|error| error.to_string())?;
    // Another errno means that the attempt got past this protection and met the kernel behind it (a family that is not built in,
    // an argument that is invalid): what mattered is that the removed step made the difference.
    if open == expected { Err(format!("without its step it is still {open:?}")) } else { Ok(()) }
}

type Single = fn(Arc<Stage>) -> Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// What does not fit the table.
pub const SINGLE: &[(&str, Single)] = &[
    ("an image whose /proc, /sys or /dev is a link must not be launched", |s| Box::pin(links(s))),
    ("a mask must not come from the image's /dev/null", |s| Box::pin(null_link(s))),
    ("a working directory in /proc/self/fd must lead nowhere", |s| Box::pin(leaked_directories(s))),
    ("a layer must be the same after root wrote over its files", |s| Box::pin(layers(s))),
    ("a container that eats memory must end as out of memory", |s| Box::pin(memory(s))),
    ("the host must not be reachable", |s| Box::pin(host_address(s))),
    ("a build must have its nine capabilities and no more", |s| Box::pin(build(s))),
];

async fn links(stage: Arc<Stage>) -> Result<(), String> {
    for image in ["proc-link", "sys-link", "dev-link"] {
        let attempt = Attempt { image, ..Attempt::new("host name", APP) };
        match stage.attempt(&attempt, |plan| plan).await {
            Err(error) if error.message.contains("os error 40") || error.message.contains("os error 20") => {}
            other => return Err(format!("{image}: {other:?}")),
        }
    }
    Ok(())
}

async fn null_link(stage: Arc<Stage>) -> Result<(), String> {
    let attempt = Attempt { image: "null-link", ..Attempt::new("read /proc/interrupts", APP) };
    match stage.attempt(&attempt, |plan| plan).await {
        Ok(Exit::Code(code)) if i32::from(code) == FINE => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn leaked_directories(stage: Arc<Stage>) -> Result<(), String> {
    let mut reached = 0;
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        let attempt = Attempt { cwd, ..Attempt::new("open descriptors", APP) };
        if stage.attempt(&attempt, |plan| plan).await.is_ok() {
            return Err(format!("descriptor {number} is a directory that was left open"));
        }
        let without = |plan: berth_wire::launch::Plan| plan.without(|s| matches!(s, Step::CloseDescriptors));
        reached += u32::from(stage.attempt(&attempt, without).await.is_ok());
    }
    if reached > 0 { Ok(()) } else { Err("without closing descriptors it still fails".into()) }
}

async fn layers(stage: Arc<Stage>) -> Result<(), String> {
    let written = stage.attempt(&Attempt::new("write over the program", ROOT), |plan| plan).await;
    let now =
        fs::read_to_string(stage.dir.path().join("images/plain/bin/other")).map_err(|e| e.to_string())?;
    match (written, now.as_str()) {
        (Ok(Exit::Code(0)), "as it was") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn memory(stage: Arc<Stage>) -> Result<(), String> {
    match stage.attempt(&Attempt::new("eat memory", APP), |plan| plan).await {
        Ok(Exit::OutOfMemory) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn host_address(stage: Arc<Stage>) -> Result<(), String> {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    let gateway = stage.host.installation.address_block().nth(1).ok_or("no gateway")?;
    for address in [gateway.to_string(), "169.254.169.254".into(), "127.0.0.1".into()] {
        let env = [("TARGET".to_owned(), format!("{address}:{port}"))].into();
        let attempt = Attempt { network: true, env, ..Attempt::new("reach the host", APP) };
        match stage.attempt(&attempt, |plan| plan).await {
            Ok(Exit::Code(code)) if i32::from(code) == FINE => {}
            other => return Err(format!("{address}: {other:?}")),
        }
    }
    Ok(())
}

async fn build(stage: Arc<Stage>) -> Result<(), String> {
    let attempt = |name| Attempt { capabilities: Capabilities::Build, ..Attempt::new(name, ROOT) };
    match stage.attempt(&attempt("effective set"), |plan| plan).await {
        Ok(Exit::Code(0)) => {}
        other => return Err(format!("it has none: {other:?}")),
    }
    match stage.attempt(&attempt("raw socket"), |plan| plan).await {
        Ok(Exit::Code(code)) if i32::from(code) == EPERM => Ok(()),
        other => Err(format!("raw socket: {other:?}")),
    }
}

//! Images made to fool whoever launches them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use berth_agent::container::Bind;
use berth_wire::digest::Digest;
use berth_wire::launch::{Plan, Step};
use berth_wire::report::Exit;

use crate::images::LINKS;
use crate::stage::{Attempt, Stage};
use crate::table::FINE;

const APP: u32 = 1_000;
const ROOT: u32 = 0;

fn is_fine(exit: &Exit) -> bool {
    *exit == Exit::Code(FINE as u8)
}

/// What is in the canary's directory, and what is mounted at or below it.
fn canary(stage: &Stage) -> String {
    let dir = stage.dir.path().join("canary");
    let files = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| {
        format!("{:?}={:?}", entry.file_name(), fs::read_to_string(entry.path()).unwrap_or_default())
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().filter(|line| line.contains(&dir.display().to_string())).count();
    format!("{:?}, {mounted} mounts", files.collect::<Vec<_>>())
}

fn bind(source: &Path, target: &str) -> Bind {
    Bind { source: source.to_owned(), target: target.into(), read_only: false }
}

/// runc CVE-2026-41579, crun CVE-2026-47766: a mount point that is a link to a directory of the host.
pub async fn links(stage: Arc<Stage>) -> Result<(), String> {
    let before = canary(&stage);
    for name in LINKS {
        for kind in ["absolute", "climbing"] {
            let image = &*format!("{name}-{kind}");
            let binds =
                if name == "vol" { vec![bind(&stage.dir.path().join("images"), "/vol")] } else { vec![] };
            let attempt = Attempt { image, binds, ..Attempt::new("host name", APP) };
            match stage.attempt(&attempt, |plan| plan).await {
                Err(error)
                    if error.message.contains("os error 40") || error.message.contains("os error 20") => {}
                other => return Err(format!("{image}: {other:?}")),
            }
        }
    }
    let after = canary(&stage);
    if before == after { Ok(()) } else { Err(format!("the canary was {before} and is {after}")) }
}

/// runc CVE-2025-31133.
pub async fn null_link(stage: Arc<Stage>) -> Result<(), String> {
    let attempt = Attempt { image: "null-link", ..Attempt::new("see", APP) };
    match stage.attempt(&attempt.with(["/proc/interrupts"]), |plan| plan).await {
        Ok(exit) if is_fine(&exit) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// runc CVE-2019-19921 and CVE-2025-52881: what the image has in /proc is covered, and a volume that takes its place is not written to.
pub async fn own_proc(stage: Arc<Stage>) -> Result<(), String> {
    for path in ["/proc/self/status", "/proc/self/uid_map", "/proc/sysrq-trigger"] {
        let attempt = Attempt { image: "own-proc", ..Attempt::new("read", APP) };
        match stage.attempt(&attempt.with([path, "forged"]), |plan| plan).await {
            Ok(exit) if is_fine(&exit) => {}
            other => return Err(format!("{path}: {other:?}")),
        }
    }
    let before = canary(&stage);
    let volume = bind(&stage.dir.path().join("canary"), "/proc");
    let attempt = Attempt { binds: vec![volume], ..Attempt::new("host name", APP) };
    let launched = stage.attempt(&attempt, |plan| plan).await;
    let after = canary(&stage);
    if before == after {
        Ok(())
    } else {
        Err(format!("the canary was {before} and is {after}; {launched:?}"))
    }
}

/// CVE-2019-5736: the command is `/proc/self/exe`, which is the launcher until then, and a library of the image's is loaded into it.
pub async fn own_program(stage: Arc<Stage>) -> Result<(), String> {
    let program = stage.dir.path().join("berth-launcher");
    let digest = || fs::read(&program).map(|bytes| Digest::of(&bytes)).map_err(|error| error.to_string());
    let before = digest()?;
    let env = [("LD_PRELOAD".to_owned(), "/poison.so".to_owned())];
    let command = Some(vec!["/proc/self/exe".to_owned()]);
    let attempt = Attempt { image: "poisoned", command, env: env.into(), ..Attempt::new("", ROOT) };
    let shipped = stage.attempt(&attempt, |plan| plan).await;
    let privileged = |plan: Plan| {
        plan.without(|s| {
            matches!(s, Step::EnterUser { .. } | Step::Seccomp { .. } | Step::Bounding { .. })
                || matches!(s, Step::Capabilities { .. } | Step::NoNewPrivileges)
        })
    };
    // As root of the host the attack opens what it likes; only that the program is running is in its way then.
    let open = stage.attempt(&attempt, privileged).await;
    if digest()? != before {
        return Err("the launcher's binary was written to".into());
    }
    match (&shipped, &open) {
        (Ok(Exit::Code(refused)), Ok(Exit::Code(busy)))
            if i32::from(*refused) == libc::EACCES && i32::from(*busy) == libc::ETXTBSY =>
        {
            Ok(())
        }
        _ => Err(format!("as shipped {shipped:?}, as root of the host {open:?}")),
    }
}

/// CVE-2024-21626. Without the step that closes descriptors it still fails: the launcher's child has no directory open by then.
pub async fn leaked_directories(stage: Arc<Stage>) -> Result<(), String> {
    for number in 0..64 {
        let cwd = format!("/proc/self/fd/{number}");
        let attempt = Attempt { cwd, ..Attempt::new("open descriptors", APP) };
        if stage.attempt(&attempt, |plan| plan).await.is_ok() {
            return Err(format!("descriptor {number} is a directory that was left open"));
        }
    }
    Ok(())
}

/// Layers are shared: what one container writes over is its own.
pub async fn layers(stage: Arc<Stage>) -> Result<(), String> {
    let attempt = Attempt::new("write", ROOT).with(["/bin/other", "overwritten"]);
    let written = stage.attempt(&attempt, |plan| plan).await;
    let now =
        fs::read_to_string(stage.dir.path().join("images/plain/bin/other")).map_err(|e| e.to_string())?;
    match (written, now.as_str()) {
        (Ok(Exit::Code(0)), "as it was") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

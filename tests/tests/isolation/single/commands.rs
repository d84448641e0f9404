//! Commands, environments, working directories and users that cannot be: a clear error with a code, and nothing left.

use std::sync::Arc;

use berth_wire::code::Code;
use berth_wire::report::Exit;

use crate::stage::{Attempt, Stage};

const APP: u32 = 1_000;

fn command(words: &[&str]) -> Attempt<'static> {
    let command = Some(words.iter().map(|word| (*word).to_owned()).collect());
    Attempt { command, ..Attempt::new("", APP) }
}

fn directory(cwd: &str) -> Attempt<'static> {
    Attempt { cwd: cwd.into(), ..Attempt::new("wait", APP) }
}

/// Each with a part of what is said about it.
fn impossible() -> Vec<(Attempt<'static>, &'static str)> {
    let large = "x".repeat(3 << 20);
    let env = |key: &str, value: &str| Attempt {
        env: [(key.to_owned(), value.to_owned())].into(),
        ..Attempt::new("wait", APP)
    };
    vec![
        (command(&[]), "command is empty"),
        (command(&[""]), "command is empty"),
        (command(&["/bin/absent"]), "/bin/absent: not found"),
        (command(&["absent"]), "absent: not found"),
        (command(&["./bin/absent"]), "not found"),
        (command(&["/bin/not-executable"]), "not executable"),
        (command(&["/bin"]), "not executable"),
        (command(&["/bin/garbage"]), "not a program for this machine"),
        (command(&["/bin/no-interpreter"]), "not found"),
        (command(&["/bin/probe\0/bin/sh"]), "NUL"),
        (command(&["/bin/probe", "a\0b"]), "NUL"),
        (command(&["/bin/probe", &large]), "more than"),
        (command(&["/bin/probe", &large[..200_000]]), "/bin/probe: "),
        (command(&["/proc/1/exe"]), "not executable"),
        (env("A", "b\0c"), "NUL"),
        (env("A", &large), "more than"),
        (directory("/absent"), "working directory /absent"),
        (directory("/bin/probe"), "working directory /bin/probe"),
        (directory(""), "working directory"),
        (directory("/a\0b"), "working directory"),
        (directory("/proc/1/root"), "working directory"),
    ]
}

/// What the host has of containers, in every place that holds something of them.
async fn parts(stage: &Stage, id: berth_wire::id::InstanceId) -> Result<Vec<&'static str>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let host = &stage.host;
    let process = host.launcher.status(id).await.map_err(|e| text(&e))?.is_some();
    let group = host.cgroups.list().map_err(|e| text(&e))?.contains(&id);
    let disk = host.disk.list().map_err(|e| text(&e))?.contains(&id);
    let address = host.network.list().contains(&id);
    let all = [("process", process), ("cgroup", group), ("disk", disk), ("address", address)];
    Ok(all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect())
}

pub async fn refused(stage: Arc<Stage>) -> Result<(), String> {
    for (attempt, saying) in impossible() {
        let what = format!("{:.60?} in {:?}", attempt.argv(), attempt.cwd);
        let spec = stage.spec(&Attempt { network: true, ..attempt });
        let id = spec.id;
        match stage.host.start(spec).await {
            Err(error) if error.code == Code::R19 && error.message.contains(saying) => {}
            Err(error) => return Err(format!("{what}: {:?} {:.300}", error.code, error.message)),
            Ok(_) => {
                let _ = stage.host.destroy(id, true).await;
                return Err(format!("{what}: it runs"));
            }
        }
        let left = parts(&stage, id).await?;
        if !left.is_empty() {
            return Err(format!("{what}: left {left:?}"));
        }
    }
    Ok(())
}

/// Strange, but nothing is wrong with them.
pub async fn strange(stage: Arc<Stage>) -> Result<(), String> {
    let env = [
        ("", "empty"),
        ("A=B", "c"),
        ("NEW\nLINE", "\u{1b}[2J\n"),
        ("LD_PRELOAD", "/absent.so"),
        ("IFS", "/"),
    ];
    let env = env.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let attempt = Attempt { env, ..Attempt::new("host name", 65_534) };
    match stage.attempt(&attempt, |plan| plan).await {
        Ok(Exit::Code(200)) => {}
        other => return Err(format!("a strange environment: {other:?}")),
    }
    // An id outside the container's range is nobody's.
    let spec = stage.spec(&Attempt::new("host name", 65_536));
    let id = spec.id;
    match stage.host.start(spec).await {
        Err(error) if error.message.contains("become user 65536") => {}
        other => return Err(format!("user 65536: {other:?}")),
    }
    let left = parts(&stage, id).await?;
    if left.is_empty() { Ok(()) } else { Err(format!("user 65536: left {left:?}")) }
}

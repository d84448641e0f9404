//! Quotas, and what two containers have of each other.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use berth_agent::container::Capabilities;
use berth_wire::id::InstanceId;
use berth_wire::launch::Step;
use berth_wire::quota::{Bounds, MIB, Quota};
use berth_wire::report::Exit;

use crate::stage::{Attempt, Stage};

const APP: u32 = 1_000;
const ROOT: u32 = 0;

async fn expect(stage: &Stage, attempt: Attempt<'_>, wanted: &[Exit]) -> Result<(), String> {
    let (name, arguments) = (attempt.name, attempt.arguments.join(" "));
    match stage.attempt(&attempt, |plan| plan).await {
        Ok(exit) if wanted.contains(&exit) => Ok(()),
        other => Err(format!("{name} {arguments}: {other:?}, not {wanted:?}")),
    }
}

fn errno(number: i32) -> Exit {
    Exit::Code(number as u8)
}

/// The quota of an attempt is 64 MiB, and there is no swap.
pub async fn memory(stage: Arc<Stage>) -> Result<(), String> {
    expect(&stage, Attempt::new("eat memory", APP).with([32]), &[errno(0)]).await?;
    expect(&stage, Attempt::new("eat memory", APP).with([256]), &[Exit::OutOfMemory]).await
}

/// The kernel ends one process; the container must end, as the one event that this is. Where the kernel does not see to it, the agent
/// does by looking each second; here somebody looks more often.
pub async fn memory_of_a_child(stage: Arc<Stage>) -> Result<(), String> {
    let spec = stage.spec(&Attempt::new("eat memory in a child and wait", APP).with([256]));
    let id = spec.id;
    stage.host.start(spec).await.map_err(|error| error.to_string())?;
    let look = async {
        loop {
            if let Ok(Some(group)) = stage.host.cgroups.get(id) {
                let _ = group.end_if_out_of_memory();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = tokio::select! {
        exit = tokio::time::timeout(Duration::from_secs(20), stage.host.wait(id)) => exit.ok(),
        () = look => None,
    };
    stage.host.destroy(id, true).await.map_err(|error| error.to_string())?;
    if ended == Some(Exit::OutOfMemory) { Ok(()) } else { Err(format!("{ended:?}")) }
}

/// What lies in /tmp and /dev/shm counts as memory, and cannot be more.
pub async fn temporary_files(stage: Arc<Stage>) -> Result<(), String> {
    for directory in ["/tmp", "/dev/shm"] {
        let fill = |mib| Attempt::new("fill", APP).with([directory.to_owned(), format!("{mib}")]);
        expect(&stage, fill(16), &[errno(0)]).await?;
        expect(&stage, fill(128), &[Exit::OutOfMemory, errno(libc::ENOSPC)]).await?;
        let both = Attempt::new("fill and eat", APP).with([directory, "40", "40"]);
        expect(&stage, both, &[Exit::OutOfMemory]).await?;
    }
    Ok(())
}

pub async fn disk(stage: Arc<Stage>) -> Result<(), String> {
    let full = [errno(libc::EDQUOT), errno(libc::ENOSPC)];
    expect(&stage, Attempt::new("fill", ROOT).with(["/", "32"]), &full).await?;
    let mut larger = Attempt::new("fill", ROOT).with(["/", "32"]);
    larger.quota.disk_bytes = Bounds::new(MIB, 64 * MIB);
    expect(&stage, larger, &[errno(0)]).await
}

/// What the kernel has as the container's limits, if its quota is the default.
pub async fn default_quota(stage: Arc<Stage>) -> Result<(), String> {
    let (id, pid) = start_waiting(&stage, Quota::default()).await?;
    let limits = limits(&stage, pid);
    stage.host.destroy(id, true).await.map_err(|error| error.to_string())?;
    let wanted = Quota::default();
    let (memory, pids) = (wanted.memory_bytes.max.to_string(), wanted.pids.max.to_string());
    match limits.as_slice() {
        [m, p, cpu] if *m == memory && *p == pids && !cpu.starts_with("max") && !cpu.starts_with('-') => {
            Ok(())
        }
        other => Err(format!("the kernel has {other:?} for {wanted:?}")),
    }
}

/// Memory, processes and CPU bandwidth of the cgroup that a process is in.
fn limits(stage: &Stage, pid: u32) -> Vec<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let files = if stage.host.cgroups.is_unified() {
        [("", "memory.max"), ("", "pids.max"), ("", "cpu.max")]
    } else {
        [("memory", "memory.limit_in_bytes"), ("pids", "pids.max"), ("cpu", "cpu.cfs_quota_us")]
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let read = |(controller, file): (&str, &str)| {
        let of = |line: &&str| {
            line.split(':').nth(1).is_some_and(|names| names.split(',').any(|n| n == controller))
        };
        let path = groups.lines().find(of).and_then(|line| line.splitn(3, ':').nth(2))?;
        let mount = mounts.lines().find(|line| {
            let mut halves = line.split(" - ");
            let options = halves.nth(1).unwrap_or_default();
            if controller.is_empty() {
                options.starts_with("cgroup2 ")
            } else {
                options.starts_with("cgroup ")
                    && options.rsplit([',', ' ']).any(|option| option == controller)
            }
        })?;
        fs::read_to_string(format!("{}{path}/{file}", mount.split(' ').nth(4)?)).ok()
    };
    files.into_iter().map(|file| read(file).unwrap_or_default().trim().to_owned()).collect()
}

async fn start_waiting(stage: &Stage, quota: Quota) -> Result<(InstanceId, u32), String> {
    let spec = stage.spec(&Attempt { quota, ..Attempt::new("wait", APP) });
    let id = spec.id;
    let started = stage.host.start(spec).await.map_err(|error| error.to_string())?;
    Ok((id, started.pid))
}

/// No id on the host is that of two containers that live at the same time.
pub async fn id_ranges(stage: Arc<Stage>) -> Result<(), String> {
    let mut ranges = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..8 {
        let (id, pid) = start_waiting(&stage, Attempt::new("", APP).quota).await?;
        ids.push(id);
        for kind in ["uid_map", "gid_map"] {
            let map = fs::read_to_string(format!("/proc/{pid}/{kind}")).map_err(|error| error.to_string())?;
            let numbers: Vec<u64> = map.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [0, first, 65_536] = *numbers.as_slice() else { return Err(format!("{kind}: {map}")) };
            ranges.push((kind, first));
        }
    }
    for id in ids {
        stage.host.destroy(id, true).await.map_err(|error| error.to_string())?;
    }
    ranges.sort_unstable();
    let apart = ranges.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[1].1 - pair[0].1 >= 65_536);
    if apart && ranges.iter().all(|(_, first)| *first >= 65_536) {
        Ok(())
    } else {
        Err(format!("{ranges:?}"))
    }
}

pub async fn build(stage: Arc<Stage>) -> Result<(), String> {
    let attempt = |name| Attempt { capabilities: Capabilities::Build, ..Attempt::new(name, ROOT) };
    for field in ["CapEff:", "CapPrm:", "CapBnd:"] {
        expect(&stage, attempt("status").with(["self", field, "5fb"]), &[errno(200)]).await?;
    }
    for field in ["CapInh:", "CapAmb:"] {
        expect(&stage, attempt("status").with(["self", field, ""]), &[errno(200)]).await?;
    }
    // CAP_KILL alone: a main process may become another user.
    expect(&stage, attempt("status").with(["1", "CapPrm:", "20"]), &[errno(200)]).await?;
    let raw = [libc::SYS_socket, 2, 3, 1];
    expect(&stage, attempt("call").with(raw), &[errno(libc::EPERM)]).await?;
    expect(&stage, attempt("mount").with(["tmpfs"]), &[errno(libc::EPERM)]).await?;
    expect(&stage, attempt("make a device"), &[errno(libc::EPERM)]).await
}

/// A node on which nodes work all the same: the rule of the cgroup lets the usual ones through and nothing else.
pub async fn device_rule(stage: Arc<Stage>) -> Result<(), String> {
    for (path, wanted) in [("/node", 0), ("/kmsg", libc::EPERM)] {
        let attempt = Attempt::new("open", ROOT).with([path]);
        let adjusted =
            stage.attempt(&attempt, |plan| plan.without(|s| matches!(s, Step::NoDevices { .. }))).await;
        if adjusted.as_ref().is_ok_and(|exit| *exit == errno(wanted)) {
            continue;
        }
        return Err(format!("{path}: {adjusted:?}"));
    }
    // The host itself is under no such rule.
    fs::File::open(stage.dir.path().join("images/plain/kmsg")).map(drop).map_err(|error| error.to_string())
}

//! The launcher dead, and the launcher replaced in place: how containers ended meanwhile is known afterwards, and no line that they
//! wrote is lost, no request fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_tests::installation::eventually;
use berth_tests::traffic::get;
use rustix::process::{Pid, Signal, kill_process};

use crate::stage::{BYSTANDER, Stage, TARGET};

/// Upgrades in one test.
const UPGRADES: usize = 20;
/// Lines that the bystander writes for each.
const LINES: usize = 25;

/// What the app says before it crashes.
const LAST_WORDS: &str = "crashing as told";

/// A container that ends while there is no launcher ended as it did, and what it said last is in the log.
pub fn ends_while_dead(stage: &mut Stage) -> Result<(), String> {
    let hold = stage.berth.interposed("berth-launcher", "hold");
    fs::write(&hold, "").map_err(|error| error.to_string())?;
    let old = stage.berth.process("launcher");
    stage.berth.kill("launcher");
    let target = stage.berth.processes_of(TARGET);
    let before = lines(stage, TARGET, LAST_WORDS);
    let _ = get(&stage.berth, TARGET, "/crash");
    let ended = eventually(Duration::from_secs(20), || {
        let now = stage.berth.processes_of(TARGET);
        target.iter().any(|pid| !now.contains(pid))
    });
    let wrote = get(&stage.berth, BYSTANDER, &format!("/log?lines={LINES}&text=unwatched"));
    fs::remove_file(&hold).map_err(|error| error.to_string())?;
    if !ended || wrote.status != 200 {
        return Err(format!("without a launcher: ended {ended}, {wrote:?}"));
    }
    if !stage.berth.comes_again("launcher", old) {
        return Err("the launcher did not start again".to_owned());
    }
    exit_status_is_told(stage)?;
    lines_are_there(stage, TARGET, LAST_WORDS, before + 1)?;
    lines_are_there(stage, BYSTANDER, "unwatched ", LINES)?;
    stage.target_is_back();
    stage.settle()
}

/// Upgrades under load: releases, log lines, an end in between; the same process id, and a broken program that changes nothing.
pub fn under_load(stage: &mut Stage) -> Result<(), String> {
    let pid = stage.berth.process("launcher").ok_or("there is no launcher")?;
    let program = fs::read_link(format!("/proc/{pid}/exe")).map_err(|error| error.to_string())?;
    put_in_place(&program, &fs::read(&program).map_err(|error| error.to_string())?)?;
    for number in 0..UPGRADES {
        let text = format!("upgrade-{number}-line");
        let before = image_of(pid)?;
        std::thread::scope(|scope| {
            let berth = &stage.berth;
            let wrote = scope.spawn(|| get(berth, BYSTANDER, &format!("/log?lines={LINES}&text={text}")));
            hang_up(pid)?;
            let replaced =
                eventually(Duration::from_secs(20), || image_of(pid).is_ok_and(|now| now != before));
            let answer = wrote.join().map_err(|_| "the request's thread panicked")?;
            if replaced && answer.status == 200 {
                Ok(())
            } else {
                Err(format!("replaced {replaced}, {answer:?}"))
            }
        })?;
        if number % 4 == 0 {
            change_and_upgrade(stage, pid)?;
        }
    }
    for number in 0..UPGRADES {
        lines_are_there(stage, BYSTANDER, &format!("upgrade-{number}-line "), LINES)?;
    }
    end_during_upgrade(stage, pid)?;
    broken_program(stage, pid, &program)?;
    let now = stage.berth.process("launcher");
    if now != Some(pid) {
        return Err(format!("the launcher was {pid} and is {now:?}"));
    }
    stage.settle()
}

/// A release whose launch and teardown are under way while the launcher is replaced, again and again.
fn change_and_upgrade(stage: &mut Stage, pid: i32) -> Result<(), String> {
    let failed = stage.failed_releases.len();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let again = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                hang_up(pid)?;
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok::<(), String>(())
        });
        let changed = stage.change();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        again.join().map_err(|_| "a thread panicked".to_owned())?.and(changed)
    })?;
    match stage.failed_releases.get(failed) {
        Some(said) => Err(format!("a release failed because of an upgrade: {said}")),
        None => Ok(()),
    }
}

fn end_during_upgrade(stage: &mut Stage, pid: i32) -> Result<(), String> {
    stage.settle()?;
    std::thread::scope(|scope| {
        let berth = &stage.berth;
        let crash = scope.spawn(|| get(berth, TARGET, "/crash"));
        let upgraded = (0..20).try_for_each(|_| hang_up(pid));
        let _ = crash.join();
        upgraded
    })?;
    exit_status_is_told(stage)?;
    stage.target_is_back();
    stage.settle()
}

/// What cannot be executed is not: the old program goes on.
fn broken_program(stage: &mut Stage, pid: i32, program: &Path) -> Result<(), String> {
    let good = fs::read(program).map_err(|error| error.to_string())?;
    put_in_place(program, b"this is no program\n")?;
    hang_up(pid)?;
    let log = stage.berth.data.join("run/launcher.log");
    let said = || fs::read_to_string(&log).unwrap_or_default().contains("this one goes on");
    let told = eventually(Duration::from_secs(20), said);
    put_in_place(program, &good)?;
    if told { stage.change() } else { Err("the launcher did not say that it goes on".to_owned()) }
}

/// As a package does it: another file, then renamed over the first.
fn put_in_place(program: &Path, content: &[u8]) -> Result<(), String> {
    let mut new = PathBuf::from(program);
    new.set_extension("new");
    let done = fs::write(&new, content)
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&new, program));
    done.map_err(|error| format!("{}: {error}", program.display()))
}

/// What is another after each execve: where the kernel put things (proc_pid_auxv(5), AT_RANDOM among others).
fn image_of(pid: i32) -> Result<Vec<u8>, String> {
    fs::read(format!("/proc/{pid}/auxv")).map_err(|error| format!("process {pid}: {error}"))
}

fn hang_up(pid: i32) -> Result<(), String> {
    let process = Pid::from_raw(pid).ok_or("no process id")?;
    kill_process(process, Signal::HUP).map_err(|error| format!("kill -HUP {pid}: {error}"))
}

/// The probe's `/crash` ends with status 7.
fn exit_status_is_told(stage: &Stage) -> Result<(), String> {
    let told = || {
        let instances = stage.berth.berth_json(&["ps", "-a", TARGET]);
        let exits =
            instances.as_array().into_iter().flatten().map(|instance| instance["last_exit"].to_string());
        exits.collect::<Vec<_>>().join(" ")
    };
    let right = eventually(Duration::from_secs(30), || told().contains('7'));
    if right { Ok(()) } else { Err(format!("the last exit of {TARGET} is told as {}", told())) }
}

fn lines_are_there(stage: &Stage, app: &str, text: &str, count: usize) -> Result<(), String> {
    let mut found = 0;
    let all = eventually(Duration::from_secs(20), || {
        found = lines(stage, app, text);
        found >= count
    });
    if all { Ok(()) } else { Err(format!("{found} of {count} lines with {text:?} are in the log of {app}")) }
}

fn lines(stage: &Stage, app: &str, text: &str) -> usize {
    stage.berth.berth_ok(&["logs", "-n", "1000", "--process", "web", "-a", app]).matches(text).count()
}

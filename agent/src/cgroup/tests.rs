//! The groups against the running kernel. Needs root.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use berth_wire::quota::{Bounds, MIB};
use uuid::Uuid;

use super::control::write;
use super::*;

/// An installation of this test's own, gone when dropped.
pub(super) struct Machine {
    pub(super) installation: Installation,
    pub(super) cgroups: Cgroups,
}

impl Machine {
    pub(super) fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: control groups need root");
            return None;
        }
        let id = format!("t-cg-{name}-{}", std::process::id());
        let installation = Installation::new(&id).unwrap();
        let cgroups = Cgroups::open(&installation).unwrap();
        Some(Self { installation, cgroups })
    }

    pub(super) fn cgroup(&self, quota: &Quota) -> Cgroup {
        self.cgroups.create(id(), quota).unwrap()
    }
}

fn id() -> InstanceId {
    InstanceId(Uuid::now_v7())
}

impl Drop for Machine {
    fn drop(&mut self) {
        for id in self.cgroups.list().unwrap_or_default() {
            if let Ok(Some(cgroup)) = self.cgroups.get(id) {
                let _ = cgroup.remove();
            }
        }
        let _ = self.cgroups.close_down();
        let _ = self.installation.release();
    }
}

/// Runs a program that waits for a line on its standard input, then moves it into the groups and lets it go.
pub(super) fn run_in(cgroup: &Cgroup, script: &str) -> Child {
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let handles = cgroup.handles().unwrap();
    for procs in handles.legacy {
        rustix::io::write(&procs, child.id().to_string().as_bytes()).unwrap();
    }
    write(&cgroup.groups.unified.join("cgroup.procs"), &child.id().to_string()).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    child
}

#[test]
fn a_quota_must_be_what_the_kernel_holds() {
    let Some(machine) = Machine::new("quota") else { return };
    let quota = Quota { cpu_millis: Bounds::new(250, 750), pids: Bounds::new(4, 33), ..Quota::default() };
    let cgroup = machine.cgroup(&quota);
    let read = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).unwrap().trim().to_owned();
    match &cgroup.groups.legacy {
        Some([cpu, memory, pids, _]) => {
            assert_eq!(read(cpu, "cpu.cfs_quota_us"), "75000");
            assert_eq!(read(cpu, "cpu.shares"), "256");
            assert_eq!(read(memory, "memory.limit_in_bytes"), (512 * MIB).to_string());
            assert_eq!(read(pids, "pids.max"), "33");
        }
        None => {
            let group = &cgroup.groups.unified;
            assert_eq!(read(group, "cpu.max"), "75000 100000");
            assert_eq!(read(group, "memory.max"), (512 * MIB).to_string());
            assert_eq!(read(group, "memory.oom.group"), "1");
            assert_eq!(read(group, "pids.max"), "33");
        }
    }
    for max in [1_024 * MIB, 64 * MIB] {
        cgroup.set_quota(&Quota { memory_bytes: Bounds::new(MIB, max), ..quota }).unwrap();
    }
}

#[test]
fn a_process_must_be_counted_killed_and_its_groups_removed() {
    let Some(machine) = Machine::new("kill") else { return };
    let cgroup = machine.cgroup(&Quota::default());
    assert!(!cgroup.populated().unwrap());
    let mut child = run_in(&cgroup, "while :; do :; done");
    assert!(cgroup.populated().unwrap());
    while cgroup.sample().unwrap().cpu_usage_us == 0 {}
    let sample = cgroup.sample().unwrap();
    assert_eq!(sample.pids, 1);
    assert!(sample.memory_usage_bytes >= sample.memory_working_set_bytes);
    assert!(!cgroup.wait_empty(1).unwrap());
    cgroup.kill().unwrap();
    child.wait().unwrap();
    assert!(cgroup.wait_empty(1_000).unwrap());
    cgroup.remove().unwrap();
    cgroup.remove().unwrap();
    cgroup.kill().unwrap();
    assert_eq!(machine.cgroups.list().unwrap(), []);
}

#[test]
fn more_memory_than_the_quota_must_end_the_whole_container() {
    let Some(machine) = Machine::new("oom") else { return };
    let quota = Quota { memory_bytes: Bounds::new(MIB, 16 * MIB), ..Quota::default() };
    let cgroup = machine.cgroup(&quota);
    // A bystander that would outlive the hog on its own.
    let mut bystander = run_in(&cgroup, "read never");
    let mut hog = run_in(&cgroup, "head -c 100M /dev/zero | tail");
    hog.wait().unwrap();
    assert!(cgroup.end_if_out_of_memory().unwrap());
    assert!(cgroup.sample().unwrap().memory_oom_kills > 0);
    bystander.wait().unwrap();
    assert!(cgroup.wait_empty(1_000).unwrap());
}

#[test]
fn a_fork_bomb_must_stop_at_the_quota() {
    let Some(machine) = Machine::new("pids") else { return };
    let quota = Quota { pids: Bounds::new(4, 8), ..Quota::default() };
    let cgroup = machine.cgroup(&quota);
    let mut child = run_in(&cgroup, "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 60 & done; wait");
    let status = child.wait().unwrap();
    assert!(!status.success());
    assert!(cgroup.sample().unwrap().pids <= 8);
}

#[test]
fn only_listed_devices_must_open() {
    let Some(machine) = Machine::new("dev") else { return };
    let cgroup = machine.cgroup(&Quota::default());
    let opens = |device: &str| run_in(&cgroup, &format!("exec <{device}")).wait().unwrap().success();
    assert!(opens("/dev/null") && opens("/dev/urandom"));
    assert!(!opens("/dev/kmsg"));
    assert!(!opens("/dev/loop-control"));
    // Opened again, the rule must be taken over and not doubled.
    Cgroups::open(&machine.installation).unwrap();
    assert!(opens("/dev/zero") && !opens("/dev/kmsg"));
}

#[test]
fn the_v1_device_list_must_hold_without_bpf() {
    let Some(machine) = Machine::new("dev1") else { return };
    let Some(mount) = Hierarchy::find(None).unwrap().legacy_devices else {
        println!("skipped: no v1 devices controller here");
        return;
    };
    let parent = mount.join(machine.installation.cgroup_parent());
    make_dir(&parent).unwrap();
    device_rule::set_legacy(&parent).unwrap();
    device_rule::set_legacy(&parent).unwrap();
    let opens = |device: &str| {
        let script = format!("echo $$ > {}/cgroup.procs && exec <{device}", parent.display());
        Command::new("/bin/sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success()
    };
    let outcome = (opens("/dev/null"), opens("/dev/kmsg"));
    fs::remove_dir(&parent).unwrap();
    assert_eq!(outcome, (true, false));
}

#[test]
fn groups_made_ahead_must_be_handed_over_or_removed_like_any_other() {
    let Some(machine) = Machine::new("ahead") else { return };
    let (first, second, to) = (id(), id(), id());
    let (set, quota) = (Quota::default(), Quota { pids: Bounds::new(4, 33), ..Quota::default() });
    for id in [first, second] {
        machine.cgroups.make_ahead(id, &set).unwrap();
    }
    let cgroup = machine.cgroups.hand_over((first, &set), (to, &quota)).unwrap();
    let pids = cgroup.groups.legacy.as_ref().map_or(&cgroup.groups.unified, |[_, _, pids, _]| pids);
    assert_eq!(fs::read_to_string(pids.join("pids.max")).unwrap().trim(), "33");
    let mut child = run_in(&cgroup, "exit 0");
    child.wait().unwrap();
    assert!(machine.cgroups.get(first).unwrap().is_none());
    if let Some(never_used) = machine.cgroups.get(second).unwrap() {
        assert!(!never_used.populated().unwrap());
        never_used.remove().unwrap();
    }
    cgroup.remove().unwrap();
    assert_eq!(machine.cgroups.list().unwrap(), []);
}

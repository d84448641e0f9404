//! Quotas that change under processes that run, and each of the smaller ones biting, against the running kernel. Needs root.

use std::time::{Duration, Instant};

use berth_wire::quota::{Bounds, MIB};

use super::tests::{Machine, run_in};
use super::*;
use crate::disk::Disk;
use crate::disk::shares::Shares;

fn content(cgroup: &Cgroup, legacy: (usize, &str), unified: &str) -> String {
    let path = match &cgroup.groups.legacy {
        Some(groups) => groups[legacy.0].join(legacy.1),
        None => cgroup.groups.unified.join(unified),
    };
    fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn burst_swap_and_high_must_be_what_the_kernel_holds_in_any_order() {
    let Some(machine) = Machine::new("amounts") else { return };
    let cgroup = machine.cgroup(&Quota::default());
    let with = |cpu, burst, high, swap| Quota {
        cpu_millis: Bounds::new(10, cpu),
        cpu_burst_millis: burst,
        memory_high_bytes: high,
        swap_bytes: swap,
        ..Quota::default()
    };
    for (cpu, burst, high, swap) in [(1_000, 1_000, 100, 64), (200, 100, 0, 0), (2_000, 1_500, 300, 0)] {
        cgroup.set_quota(&with(cpu, burst, high * MIB, swap * MIB)).unwrap();
        let held = content(&cgroup, (0, "cpu.cfs_burst_us"), "cpu.max.burst");
        assert_eq!(held, (burst * 100).to_string());
        match &cgroup.groups.legacy {
            Some([_, memory, _, _]) if memory.join("memory.memsw.limit_in_bytes").exists() => {
                let held = fs::read_to_string(memory.join("memory.memsw.limit_in_bytes")).unwrap();
                assert_eq!(held.trim(), ((512 + swap) * MIB).to_string());
            }
            Some(_) => {}
            None => {
                assert_eq!(content(&cgroup, (1, ""), "memory.swap.max"), (swap * MIB).to_string());
                let high = if high == 0 { "max".to_owned() } else { (high * MIB).to_string() };
                assert_eq!(content(&cgroup, (1, ""), "memory.high"), high);
            }
        }
    }
    assert_eq!(unenforced().unwrap().contains_key("memory_high_bytes"), cgroup.groups.legacy.is_some());
}

#[test]
fn memory_in_use_must_not_be_taken_by_a_smaller_quota() {
    let Some(machine) = Machine::new("smaller") else { return };
    let cgroup = machine.cgroup(&Quota::default());
    // A variable of 48 MiB, and then silence.
    let mut child = run_in(&cgroup, "x=$(head -c 50331648 /dev/zero | tr '\\0' x); echo >&2; read never");
    while cgroup.sample().unwrap().memory_usage_bytes < 48 * MIB {
        std::thread::yield_now();
    }
    let memory = |max| Quota { memory_bytes: Bounds::new(0, max * MIB), ..Quota::default() };
    let refused = cgroup.set_quota(&memory(16)).unwrap_err();
    assert!(
        matches!(refused, CgroupError::MemoryInUse { max_bytes, .. } if max_bytes == 16 * MIB),
        "{refused}"
    );
    let limit = |cgroup: &Cgroup| content(cgroup, (1, "memory.limit_in_bytes"), "memory.max");
    assert_eq!(limit(&cgroup), (512 * MIB).to_string());
    assert_eq!((cgroup.oom_kills().unwrap(), child.try_wait().unwrap()), (0, None));
    cgroup.set_quota(&memory(256)).unwrap();
    assert_eq!(limit(&cgroup), (256 * MIB).to_string());
    cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn page_cache_must_make_room_for_a_smaller_quota() {
    let Some(machine) = Machine::new("cache") else { return };
    let cgroup = machine.cgroup(&Quota::default());
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = dir.path().join("file");
    let script = format!("head -c 64M /dev/zero > {0}; sync {0}; cat {0} > /dev/null", file.display());
    assert!(run_in(&cgroup, &script).wait().unwrap().success());
    assert!(cgroup.sample().unwrap().memory_usage_bytes > 32 * MIB);
    cgroup.set_quota(&Quota { memory_bytes: Bounds::new(0, 16 * MIB), ..Quota::default() }).unwrap();
    assert!(cgroup.sample().unwrap().memory_usage_bytes <= 16 * MIB);
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
}

#[test]
fn open_files_must_change_under_every_process_that_runs() {
    let Some(machine) = Machine::new("files") else { return };
    let cgroup = machine.cgroup(&Quota::default());
    let mut child = run_in(&cgroup, "sleep 60 & sleep 60 & wait");
    while cgroup.processes().unwrap().len() < 3 {
        std::thread::yield_now();
    }
    let limits = |name: &str| -> Vec<Vec<String>> {
        let of = |pid: i32| {
            let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect()
        };
        cgroup.processes().unwrap().into_iter().map(of).collect()
    };
    for files in [4_096, 100] {
        let quota = Quota { open_files: files, ..Quota::default() };
        cgroup.set_process_limits(&quota).unwrap();
        let soft = |limits: Vec<Vec<String>>| limits.into_iter().map(|l| l[1].clone()).collect::<Vec<_>>();
        assert_eq!(soft(limits("Max open files")), vec![files.to_string(); 3]);
    }
    assert!(limits("Max open files").iter().all(|limit| limit[0] == "100"));
    cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_frozen_container_must_stand_still_give_back_its_cache_and_go_on() {
    let Some(machine) = Machine::new("freeze") else { return };
    let cgroup = machine.cgroup(&Quota::default());
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = dir.path().join("file");
    let script = format!("head -c 32M /dev/zero > {0}; sync {0}; while :; do :; done", file.display());
    let mut child = run_in(&cgroup, &script);
    while cgroup.sample().unwrap().memory_usage_bytes < 32 * MIB {
        std::thread::yield_now();
    }
    assert!(cgroup.freeze().unwrap() && cgroup.is_frozen().unwrap());
    let used = cgroup.sample().unwrap().cpu_usage_us;
    cgroup.reclaim(false).unwrap();
    let still = cgroup.sample().unwrap();
    assert_eq!(still.cpu_usage_us, used);
    // Dirty pages may stay until they are written; the shell's own memory stays without swap.
    assert!(still.memory_usage_bytes < 32 * MIB, "{still:?}");
    cgroup.end_reclaim(&Quota::default()).unwrap();
    cgroup.thaw().unwrap();
    while cgroup.sample().unwrap().cpu_usage_us == used {}
    cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn reads_and_writes_must_not_be_faster_than_the_quota() {
    let Some(machine) = Machine::new("io") else { return };
    let data = tempfile::tempdir_in("/var/tmp").unwrap();
    let disk = Disk::open(&machine.installation, data.path(), Shares::undivided(256 * MIB)).await.unwrap();
    let (major, minor) = disk.device().unwrap();
    machine.cgroups.throttle(IoDevice { major, minor });
    let cgroup = machine.cgroup(&Quota { io_bytes_per_second: 2 * MIB, ..Quota::default() });
    let file = disk.layers_dir().join("file");
    let takes = |script: String| {
        let began = Instant::now();
        assert!(run_in(&cgroup, &script).wait().unwrap().success(), "{script}");
        began.elapsed()
    };
    let write = format!("dd if=/dev/zero of={} bs=256k count=16 oflag=direct", file.display());
    let read = format!("dd if={} of=/dev/null bs=256k iflag=direct", file.display());
    let (slow_write, slow_read) = (takes(write.clone()), takes(read.clone()));
    // 4 MiB at 2 MiB a second; the kernel lets the first slice of 100 ms pass.
    assert!(slow_write > Duration::from_millis(1_500), "{slow_write:?}");
    assert!(slow_read > Duration::from_millis(1_500), "{slow_read:?}");
    let sample = cgroup.sample().unwrap();
    assert!(sample.io_read_bytes >= 4 * MIB && sample.io_write_bytes >= 4 * MIB, "{sample:?}");
    cgroup.set_quota(&Quota { io_bytes_per_second: 1 << 30, ..Quota::default() }).unwrap();
    let (fast_write, fast_read) = (takes(write), takes(read));
    assert!(fast_write + fast_read < slow_write, "{fast_write:?} {fast_read:?}");
    cgroup.set_quota(&Quota { io_operations_per_second: 10, ..Quota::default() }).unwrap();
    let counted = takes(format!("dd if={} of=/dev/null bs=4k count=30 iflag=direct", file.display()));
    assert!(counted > Duration::from_millis(1_500), "{counted:?}");
    cgroup.remove().unwrap();
    disk.close().await.unwrap();
}

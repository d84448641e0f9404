//! The noises, one after another.

use std::time::Duration;

use berth_tests::installation::{Installation, eventually};
use berth_tests::traffic::get;

use crate::attack::{Attack, named};
use crate::victim::Victim;
use crate::{NEIGHBOUR, VICTIM};

/// A scenario: its name as a sentence, and what it does with the installation.
pub type Scenario = (&'static str, fn(&Installation));

pub const ALL: &[Scenario] = &[
    ("a_cpu_hog_must_be_borne_and_named", cpu),
    ("a_fork_bomb_must_be_borne_and_named", forks),
    ("a_memory_bomb_must_be_borne_and_named", memory),
    ("a_page_cache_filler_must_be_borne_and_named", page_cache),
    ("a_disk_filler_must_be_borne_and_named", disk),
    ("a_filler_of_small_files_must_be_borne_and_named", small_files),
    ("exhausted_open_files_must_be_borne_and_named", files),
    ("a_flood_of_connections_must_be_borne_and_named", connections),
    ("a_tmpfs_filler_must_be_borne_and_named", tmpfs),
    ("a_storm_of_signals_must_be_borne_and_named", signals),
    ("a_flood_of_lookups_must_be_borne_and_named", lookups),
    ("exhausted_inotify_instances_must_be_borne_and_named", inotify),
    // Last: what it writes pushes everything else out of the log's end.
    ("a_log_flood_must_be_borne_and_named", log),
];

fn cpu(berth: &Installation) {
    Attack { kind: "cpu", quota: &["--cpu", "50m"], code: "R29" }.must_be_borne_and_named(berth);
}

fn forks(berth: &Installation) {
    let quota = &["--pids", "64", "--cpu", "500m"];
    Attack { kind: "forks", quota, code: "R28" }.must_be_borne_and_named(berth);
}

fn memory(berth: &Installation) {
    Attack { kind: "memory", quota: &["--memory", "128M"], code: "R14" }.must_be_borne_and_named(berth);
}

fn page_cache(berth: &Installation) {
    Attack { kind: "page_cache", quota: &["--memory", "96M"], code: "R30" }.must_be_borne_and_named(berth);
}

fn disk(berth: &Installation) {
    Attack { kind: "disk", quota: &["--disk", "64M"], code: "R21" }.must_be_borne_and_named(berth);
}

fn small_files(berth: &Installation) {
    Attack { kind: "small_files", quota: &["--disk", "32M"], code: "R21" }.must_be_borne_and_named(berth);
}

/// Detached: only then does what it writes go the way of an app's log.
fn log(berth: &Installation) {
    let victim = Victim::under_load(berth);
    let before = named(berth, "R22");
    let command = ["--detach", "--cpu", "500m", "-e", "SECONDS=12", "--", "python", "attack.py", "log"];
    berth.berth_ok(&[&["run", "-a", NEIGHBOUR], &command[..]].concat());
    let came = eventually(Duration::from_secs(45), || named(berth, "R22") > before);
    victim.must_have_its_quota();
    assert!(came, "no event with R22:\n{}", berth.berth_ok(&["events", "-a", NEIGHBOUR]));
    assert_eq!(get(berth, VICTIM, "/log?lines=20&text=amidst").status, 200);
    let heard = || berth.berth_ok(&["logs", "-n", "1000", "-a", VICTIM]).contains("]: amidst 19");
    assert!(eventually(Duration::from_secs(10), heard), "lines of the victim's log are missing");
    victim.must_be_well();
}

fn files(berth: &Installation) {
    Attack { kind: "files", quota: &["--cpu", "500m"], code: "R31" }.must_be_borne(berth, |victim| {
        victim.must_run("import os; [os.open('/dev/null', 0) for _ in range(1000)]");
    });
}

/// Only v1 counts network buffers apart; on v2 they are memory.
fn connections(berth: &Installation) {
    let counted = std::path::Path::new("/sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes").exists();
    let code = if counted { "R34" } else { "R14" };
    let quota = &["--memory", "64M", "--cpu", "500m"];
    Attack { kind: "connections", quota, code }.must_be_borne_and_named(berth);
}

fn tmpfs(berth: &Installation) {
    Attack { kind: "tmpfs", quota: &["--memory", "48M"], code: "R14" }.must_be_borne_and_named(berth);
}

/// What signals cost is CPU time, and that is what it is named for.
fn signals(berth: &Installation) {
    Attack { kind: "signals", quota: &["--cpu", "50m"], code: "R29" }.must_be_borne_and_named(berth);
}

fn lookups(berth: &Installation) {
    Attack { kind: "lookups", quota: &["--cpu", "500m"], code: "R33" }
        .must_be_borne(berth, |victim| victim.must_run(ANSWERED));
}

fn inotify(berth: &Installation) {
    Attack { kind: "inotify", quota: &["--cpu", "500m"], code: "R32" }.must_be_borne(berth, |victim| {
        victim.must_run("import ctypes; assert ctypes.CDLL(None).inotify_init1(0) >= 0");
    });
}

/// Twenty messages of an operation that the server does not know, which it answers itself, at once and each at the first try.
const ANSWERED: &str = "
import socket, struct
fields = [line.split() for line in open('/proc/net/route')]
gateway = next(struct.pack('<I', int(f[2], 16)) for f in fields if f[1] == '00000000')
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(3)
asking.connect((socket.inet_ntoa(gateway), 53))
for number in range(20):
    asking.send(struct.pack('>HHHHHH', number, 2 << 11, 0, 0, 0, 0))
    assert struct.unpack('>H', asking.recv(512)[:2])[0] == number
";

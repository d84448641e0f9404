//! Quotas under a running app: a change reaches the instances that run, and what they cannot have brings new ones; neither fails
//! a request.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_tests::installation::{Installation, eventually};
use berth_tests::repository::Repository;
use berth_tests::traffic::{Traffic, get};

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_larger_quota_must_reach_a_running_instance_under_traffic", raised_while_it_runs),
    ("lines_above_the_log_rate_must_be_counted_in_the_log", log_rate),
    ("a_quota_below_what_is_in_use_must_bring_a_new_instance", lowered_below_use),
];

fn raised_while_it_runs(berth: &Installation) {
    let app = "e2e-raise";
    let repository = Repository::of_app(berth, app, "tests/apps/probe");
    repository.write("large", &"x".repeat(4 << 20));
    repository.commit("Something large");
    repository.push_ok();
    let before = instance(berth, app);
    let traffic = Traffic::start(berth, app, "/", 2);
    let changes = [
        "web.memory=640M",
        "web.cpu=750m",
        "web.cpu.floor=250m",
        "web.pids=77",
        "web.log-rate=5",
        "web.egress=2M",
        "web.io=50M",
        "web.cpu.burst=250m",
    ];
    berth.berth_ok(&[&["scale"], &changes[..], &["-a", app]].concat());
    assert_eq!(instance(berth, app), before, "the quota must change under the same instance");
    let holds = |files: &[&str]| {
        let found = files.iter().find_map(|file| Some(control_file(&before, file)?.trim().to_owned()));
        found.unwrap_or_else(|| panic!("no control file of {before} is called any of {files:?}"))
    };
    assert_eq!(holds(&["memory.max", "memory.limit_in_bytes"]), (640_u64 << 20).to_string());
    let bandwidth = holds(&["cpu.max", "cpu.cfs_quota_us"]);
    assert_eq!(bandwidth.split(' ').next(), Some("75000"), "{bandwidth}");
    let weight = holds(&["cpu.weight", "cpu.shares"]);
    assert!(weight == "25" || weight == "256", "{weight}");
    assert_eq!(holds(&["pids.max"]), "77");
    let burst = holds(&["cpu.max.burst", "cpu.cfs_burst_us"]);
    assert_eq!(burst, "25000");
    let io = holds(&["io.max", "blkio.throttle.read_bps_device"]);
    assert!(io.contains(&(50_u64 << 20).to_string()), "{io}");
    let began = Instant::now();
    assert_eq!(get(berth, app, "/file?path=/app/large").body.len(), 4 << 20);
    assert!(
        began.elapsed() > Duration::from_millis(1_500),
        "{:?} for 4 MiB at 2 MiB a second",
        began.elapsed()
    );
    // Released at once, before: 512 MiB, and 256 processes.
    assert_eq!(get(berth, app, "/memory?mib=560").status, 200);
    assert_eq!(get(berth, app, "/forks?count=100").status, 507);
    get(berth, app, "/log?lines=400&text=chatter");
    let lines =
        || berth.berth_ok(&["logs", "-n", "500", "--process", "web", "-a", app]).matches("chatter").count();
    assert!(eventually(Duration::from_secs(5), || lines() > 0));
    assert!(lines() < 50, "{} of 400 lines were let through at 5 a second", lines());
    // In a new instance where the agent lacks the privilege.
    berth.berth_ok(&["scale", "web.nofile=4096", "-a", app]);
    let limits = get(berth, app, "/file?path=/proc/self/limits").body;
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    assert!(files.contains(" 4096 "), "{limits}");
    traffic.must_not_have_failed();
}

fn log_rate(berth: &Installation) {
    let app = "e2e-chatty";
    Repository::of_app(berth, app, "tests/apps/probe").push_ok();
    berth.berth_ok(&["scale", "web.log-rate=5", "-a", app]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(get(berth, app, "/log?lines=2000&text=chatter").status, 200));
        }
    });
    let (mut sent, mut log) = (4 * 2_000, String::new());
    let all_told = eventually(Duration::from_secs(30), || {
        // What is missing is said before the next line that is let through.
        assert_eq!(get(berth, app, "/log?lines=1&text=chatter").status, 200);
        sent += 1;
        log = berth.berth_ok(&["logs", "-n", "10000", "--process", "web", "-a", app]);
        let told = |line: &str| line.split_once("[berth] R22 ")?.1.split(' ').next()?.parse::<usize>().ok();
        let discarded: usize = log.lines().filter_map(told).sum();
        discarded > 0 && discarded + log.matches("]: chatter ").count() == sent
    });
    assert!(all_told, "{sent} lines were written:\n{log}");
}

fn lowered_below_use(berth: &Installation) {
    let app = "e2e-lower";
    Repository::of_app(berth, app, "tests/apps/probe").push_ok();
    let before = instance(berth, app);
    assert_eq!(get(berth, app, "/hold?mib=150").status, 200);
    let traffic = Traffic::start(berth, app, "/", 2);
    berth.berth_ok(&["scale", "web.memory=96M", "-a", app]);
    let after = instance(berth, app);
    assert_ne!(after, before, "what uses 150 MiB cannot be given 96");
    let limit = ["memory.max", "memory.limit_in_bytes"].iter().find_map(|file| control_file(&after, file));
    assert_eq!(limit.as_deref().map(str::trim), Some((96_u64 << 20).to_string().as_str()));
    let events = berth.berth_ok(&["events", "-a", app]);
    assert!(events.contains("R26") && !events.contains("R14"), "{events}");
    traffic.must_not_have_failed();
}

/// The id of the app's only instance.
fn instance(berth: &Installation, app: &str) -> String {
    let one = || {
        let running = berth.berth_json(&["ps", "-a", app]);
        let running = running.as_array().filter(|all| all.len() == 1)?.first()?.clone();
        running["id"].as_str().map(str::to_owned)
    };
    assert!(eventually(Duration::from_secs(60), || one().is_some()), "the old instance must go");
    one().unwrap_or_default()
}

/// What a control file of an instance says, in whichever hierarchy it is.
fn control_file(instance: &str, file: &str) -> Option<String> {
    fn find(dir: &Path, name: &str, file: &str, levels: usize) -> Option<PathBuf> {
        let wanted = dir.join(name).join(file);
        if wanted.exists() {
            return Some(wanted);
        }
        let below = std::fs::read_dir(dir).ok()?.flatten().filter(|_| levels > 0);
        below
            .filter(|entry| entry.path().is_dir())
            .find_map(|entry| find(&entry.path(), name, file, levels - 1))
    }
    std::fs::read_to_string(find(Path::new("/sys/fs/cgroup"), instance, file, 4)?).ok()
}

//! An app's life under traffic: scale, config, restart, rollback, quota, each with no failed request.

use berth_tests::installation::{Installation, eventually};
use berth_tests::repository::Repository;
use berth_tests::traffic::{Traffic, body_must_come_to_have, get};
use std::time::Duration;

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    ("every_change_under_traffic_must_fail_no_request", changes_under_traffic),
    ("the_kernel_must_enforce_the_quota_that_was_asked", quota_bites),
    ("a_crashed_instance_must_be_started_again", crash),
    ("an_instance_over_its_memory_must_be_named_out_of_memory", out_of_memory),
    ("a_slow_answer_must_survive_a_restart", slow_answer),
];

fn changes_under_traffic(berth: &Installation) {
    let app = "e2e-changes";
    let repository = Repository::of_app(berth, app, "tests/apps/probe");
    repository.push_ok();
    let traffic = Traffic::start(berth, app, "/", 2);
    berth.berth_ok(&["scale", "web=3", "-a", app]);
    berth.berth_ok(&["config", "set", "GREETING=ahoy", "-a", app]);
    body_must_come_to_have(berth, app, "/", "greeting=ahoy");
    repository.write("VERSION", "two");
    repository.commit("Second version");
    repository.push_ok();
    body_must_come_to_have(berth, app, "/", "version=two");
    berth.berth_ok(&["restart", "-a", app]);
    berth.berth_ok(&["rollback", "v1", "-a", app]);
    body_must_come_to_have(berth, app, "/", "version=one");
    berth.berth_ok(&["scale", "web=1", "-a", app]);
    traffic.must_not_have_failed();
}

fn quota_bites(berth: &Installation) {
    let app = "e2e-quota";
    let repository = Repository::of_app(berth, app, "tests/apps/probe");
    repository.push_ok();
    berth.berth_ok(&["scale", "web.disk=20M", "web.pids=30", "web.memory=128M", "web.cpu=250m", "-a", app]);
    assert_eq!(get(berth, app, "/disk?mib=10").status, 200);
    let over = get(berth, app, "/disk?mib=40");
    assert_eq!(over.status, 507, "{over:?}");
    let forks = get(berth, app, "/forks?count=60");
    assert_eq!(forks.status, 507, "{forks:?}");
    assert!(get(berth, app, "/forks?count=5").body.contains("forked 5"));
}

fn crash(berth: &Installation) {
    let app = "e2e-crash";
    Repository::of_app(berth, app, "tests/apps/probe").push_ok();
    let answer = get(berth, app, "/crash");
    assert!(answer.status == 502 || answer.status == 503, "{answer:?}");
    body_must_come_to_have(berth, app, "/", "version=one");
    let restarts = || berth.berth_json(&["ps", "-a", app])[0]["restarts"].as_u64();
    assert!(eventually(Duration::from_secs(20), || restarts() >= Some(1)), "restarts: {:?}", restarts());
    assert!(
        berth.berth_ok(&["logs", "-n", "100", "--process", "web", "-a", app]).contains("crashing as told")
    );
}

fn out_of_memory(berth: &Installation) {
    let app = "e2e-oom";
    Repository::of_app(berth, app, "tests/apps/probe").push_ok();
    berth.berth_ok(&["scale", "web.memory=64M", "-a", app]);
    assert_ne!(get(berth, app, "/memory?mib=200").status, 200);
    let named = || berth.berth_ok(&["events", "-a", app]).contains("R14");
    assert!(eventually(Duration::from_secs(20), named), "{}", berth.berth_ok(&["events", "-a", app]));
    body_must_come_to_have(berth, app, "/", "version=one");
}

fn slow_answer(berth: &Installation) {
    let app = "e2e-slow";
    Repository::of_app(berth, app, "tests/apps/probe").push_ok();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| get(berth, app, "/slow?seconds=8"));
        berth.berth_ok(&["restart", "-a", app]);
        let answer = slow.join().unwrap_or_else(|_| panic!("the request's thread panicked"));
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}

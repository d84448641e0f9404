//! Releases that do not come up: each says why with its code and last words, and the one before serves on.

use berth_tests::installation::{Installation, both};
use berth_tests::repository::Repository;
use berth_tests::traffic::{Traffic, body_must_come_to_have};

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    ("an_app_that_exits_at_once_must_not_replace_the_old", exits_at_once),
    ("an_app_on_loopback_only_must_be_told_so", loopback),
    ("an_app_on_another_port_must_be_told_so", wrong_port),
    ("an_app_that_never_binds_must_time_out_with_its_code", never_binds),
    ("an_app_over_its_memory_at_boot_must_be_told_so", hungry),
    ("a_failing_release_command_must_abort_the_release", release_command_fails),
    ("a_release_command_must_run_once_before_the_switch", release_command),
    ("an_app_that_ignores_sigterm_must_be_killed_after_its_grace", stubborn),
];

/// Sets MODE, wants the release to fail with the code, and the old one to serve all the while.
#[track_caller]
fn mode_must_fail(berth: &Installation, mode: &str, code: &str, words: &str) {
    let app = format!("e2e-mode-{mode}");
    let repository = Repository::of_app(berth, &app, "tests/apps/probe");
    repository.write("berth.toml", "[health]\nboot_timeout = 8\n");
    repository.commit("Short boot");
    repository.push_ok();
    let traffic = Traffic::start(berth, &app, "/", 1);
    let output = berth.berth(&["config", "set", &format!("MODE={mode}"), "-a", &app]);
    let said = both(&output);
    assert!(!output.status.success(), "the release came up:\n{said}");
    assert!(said.contains(code), "no {code}:\n{said}");
    assert!(said.contains(words), "no {words:?}:\n{said}");
    body_must_come_to_have(berth, &app, "/", "version=one");
    traffic.must_not_have_failed();
    let releases = berth.berth_json(&["releases", "-a", &app]);
    assert!(releases.as_array().into_iter().flatten().any(|r| r["status"] == "failed"), "{releases}");
}

fn exits_at_once(berth: &Installation) {
    mode_must_fail(berth, "exit", "R16", "last words before exit");
}

fn loopback(berth: &Installation) {
    mode_must_fail(berth, "loopback", "R11", "127.0.0.1");
}

fn wrong_port(berth: &Installation) {
    mode_must_fail(berth, "wrong-port", "R13", "port");
}

fn never_binds(berth: &Installation) {
    mode_must_fail(berth, "never", "R10", "probe one starts, mode never");
}

fn hungry(berth: &Installation) {
    mode_must_fail(berth, "hungry", "R14", "emory");
}

fn release_command_fails(berth: &Installation) {
    let app = "e2e-release-fails";
    let repository = Repository::of_app(berth, app, "tests/apps/probe");
    repository.push_ok();
    repository.write("Procfile", "web: python server.py\nrelease: echo migrating; exit 4\n");
    repository.write("VERSION", "two");
    repository.commit("A migration that fails");
    let pushed = repository.push();
    assert!(pushed.text.contains("B21"), "{}", pushed.text);
    assert!(pushed.text.contains("migrating"), "{}", pushed.text);
    body_must_come_to_have(berth, app, "/", "version=one");
}

fn release_command(berth: &Installation) {
    let app = "e2e-release-runs";
    let repository = Repository::of_app(berth, app, "tests/apps/probe");
    repository.write("Procfile", "web: python server.py\nrelease: echo migrated $GREETING\n");
    repository.commit("With a migration");
    berth.berth_ok(&["config", "set", "GREETING=schema", "-a", app]);
    repository.push_ok();
    body_must_come_to_have(berth, app, "/", "version=one");
    let log = berth.berth_ok(&["logs", "-n", "200", "-a", app]);
    assert_eq!(log.matches("]: migrated schema").count(), 1, "{log}");
}

fn stubborn(berth: &Installation) {
    let app = "e2e-stubborn";
    let repository = Repository::of_app(berth, app, "tests/apps/probe");
    repository.write("berth.toml", "[deploy]\nstop_grace = 2\n");
    repository.commit("Short grace");
    berth.berth_ok(&["config", "set", "MODE=stubborn", "-a", app]);
    repository.push_ok();
    berth.berth_ok(&["restart", "-a", app]);
    let killed = || berth.berth_ok(&["events", "-a", app]).contains("R12");
    assert!(berth_tests::installation::eventually(std::time::Duration::from_secs(60), killed));
}

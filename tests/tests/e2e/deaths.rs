//! `kill -9` of each daemon, one after another: no container is lost, no written log line, no acknowledged change, and no
//! request but those in flight inside a killed edge. The script that brought Berth up starts the daemon again.

use std::time::Duration;

use berth_tests::installation::{Installation, both, eventually, free_port};
use berth_tests::repository::Repository;
use berth_tests::traffic::{Traffic, body_must_come_to_have, get};
use rustix::process::{Pid, Signal, kill_process};

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_killed_agent_must_lose_nothing", agent),
    ("a_killed_control_plane_must_lose_nothing", control_plane),
    ("without_a_control_plane_apps_must_serve_and_people_be_told", no_control_plane),
    ("a_killed_launcher_must_lose_nothing", launcher),
    ("a_killed_edge_must_come_back_on_the_same_socket", edge),
];

fn kill(pid: i32) {
    let pid = Pid::from_raw(pid).unwrap_or_else(|| panic!("{pid} is no process id"));
    kill_process(pid, Signal::KILL).unwrap_or_else(|e| panic!("kill -9 {pid:?}: {e}"));
}

/// Kills a daemon under traffic and wants: another pid, the same containers, no failed request, and a change that works after.
#[track_caller]
fn daemon_dies(berth: &Installation, daemon: &str) {
    let app = format!("e2e-kill-{daemon}");
    Repository::of_app(berth, &app, "tests/apps/probe").push_ok();
    let containers = berth.processes_of(&app);
    assert!(!containers.is_empty(), "no process of {app} found");
    let traffic = Traffic::start(berth, &app, "/", 2);
    let old = berth.daemon(daemon);
    kill(old);
    assert_eq!(get(berth, &app, "/log?lines=20&text=meanwhile").status, 200);
    assert!(
        eventually(Duration::from_secs(20), || berth.daemon(daemon) != old),
        "{daemon} was not started again"
    );
    let ready = || berth.berth(&["hosts", "--json"]).status.success();
    assert!(eventually(Duration::from_secs(30), ready), "no host after the death of {daemon}");
    assert_eq!(berth.processes_of(&app), containers, "containers were restarted");
    berth.berth_ok(&["config", "set", "GREETING=afterwards", "-a", &app]);
    body_must_come_to_have(berth, &app, "/", "greeting=afterwards");
    traffic.must_not_have_failed();
    let log = berth.berth_ok(&["logs", "-n", "1000", "--process", "web", "-a", &app]);
    assert_eq!(log.matches("]: meanwhile ").count(), 20, "log lines were lost:\n{log}");
}

fn agent(berth: &Installation) {
    daemon_dies(berth, "agent");
}

fn control_plane(berth: &Installation) {
    daemon_dies(berth, "control");
}

/// The process stands still and answers nobody; its address as a person sees it when nothing listens there at all.
fn no_control_plane(berth: &Installation) {
    let app = "e2e-alone";
    Repository::of_app(berth, app, "tests/apps/probe").push_ok();
    let pid = Pid::from_raw(berth.daemon("control")).unwrap_or_else(|| panic!("no control plane"));
    let send = |signal| kill_process(pid, signal).unwrap_or_else(|e| panic!("{signal:?}: {e}"));
    send(Signal::STOP);
    let answers: Vec<_> = (0..20).map(|_| get(berth, app, "/").status).collect();
    let crashed = get(berth, app, "/crash").status;
    let again = eventually(Duration::from_secs(20), || get(berth, app, "/").status == 200);
    send(Signal::CONT);
    assert_eq!(answers, vec![200; 20], "apps must not need the control plane");
    assert!(crashed >= 500 && again, "a crashed app must be started again without the control plane");

    let nobody = format!("http://127.0.0.1:{}", free_port());
    for arguments in [&["apps"][..], &["ps", "-a", app], &["logs", "-a", app]] {
        let output = berth.command("berth").args(arguments).env("BERTH_URL", &nobody).output();
        let output = output.unwrap_or_else(|e| panic!("berth {arguments:?}: {e}"));
        let said = both(&output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        for words in ["D14", &nobody, "Check that the control plane runs", "berth explain D14"] {
            assert!(said.contains(words), "berth {arguments:?}: no {words:?} in:\n{said}");
        }
    }
    body_must_come_to_have(berth, app, "/", "version=one");
}

fn launcher(berth: &Installation) {
    daemon_dies(berth, "launcher");
}

fn edge(berth: &Installation) {
    let app = "e2e-kill-edge";
    Repository::of_app(berth, app, "tests/apps/probe").push_ok();
    let old = berth.edge_process().unwrap_or_else(|| panic!("no edge found"));
    kill(old);
    // No connection is refused meanwhile: the socket is held, requests wait for the next edge.
    let answer = get(berth, app, "/");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_ne!(berth.edge_process(), Some(old));
}

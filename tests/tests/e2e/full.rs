//! What is used up: the host's disk and a build's quota. Whoever uses it up is told; nobody else notices.

use std::time::Duration;

use berth_tests::installation::{Installation, eventually};
use berth_tests::repository::Repository;
use berth_tests::traffic::{body_must_come_to_have, get};

use crate::Scenario;

/// Run alone: what they use up others would miss.
pub const ALONE: &[Scenario] = &[
    ("a_disk_filler_must_not_keep_others_from_deploying_scaling_and_writing", disk_filler),
    ("a_build_that_uses_up_its_quota_must_be_told_which", builds),
];

fn disk_filler(berth: &Installation) {
    make_room(berth);
    let (filler, other) = ("e2e-filler", "e2e-beside-filler");
    Repository::of_app(berth, filler, "tests/apps/probe").push_ok();
    berth.berth_ok(&["scale", "web=2", "web.disk=5G", "-a", filler]);
    // Each answers with EDQUOT (122) when there is nothing more to have; the requests go to both.
    let full = || {
        let answer = get(berth, filler, "/disk?mib=4000&keep=1");
        assert_eq!((answer.status, answer.body.trim()), (507, "errno=122"));
        berth.berth_json(&["hosts"]).to_string().contains("D13")
    };
    assert!(eventually(Duration::from_secs(120), full), "{}", berth.berth_ok(&["hosts"]));

    let repository = Repository::of_app(berth, other, "tests/apps/probe");
    repository.push_ok();
    berth.berth_ok(&["scale", "web=2", "-a", other]);
    for _ in 0..4 {
        let answer = get(berth, other, "/disk?mib=10");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    repository.write("VERSION", "two");
    repository.commit("Beside a full disk");
    repository.push_ok();
    body_must_come_to_have(berth, other, "/", "version=two");
    body_must_come_to_have(berth, filler, "/", "version=one");

    // What it gives back others have.
    berth.berth_ok(&["apps", "destroy", filler, "--confirm", filler]);
    let roomy = || get(berth, other, "/disk?mib=100").status == 200;
    assert!(eventually(Duration::from_secs(60), roomy), "the filler's disk was not given back");
}

/// The scenarios before have filled the host's CPU floors with their apps.
fn make_room(berth: &Installation) {
    for app in berth.berth_json(&["apps"]).as_array().into_iter().flatten() {
        let name = app["name"].as_str().unwrap_or_default();
        berth.berth_ok(&["apps", "destroy", name, "--confirm", name]);
    }
}

/// Pushes an app whose build runs this program, and answers what the push said.
fn pushed(berth: &Installation, name: &str, program: &str) -> String {
    let repository = Repository::of_app(berth, &format!("e2e-{name}"), "tests/apps/empty");
    repository.write(
        "package.json",
        r#"{"name":"x","version":"1.0.0","scripts":{"build":"node build.js","start":"node x"}}"#,
    );
    repository.write(
        "package-lock.json",
        r#"{"name":"x","version":"1.0.0","lockfileVersion":3,"packages":{"":{"name":"x","version":"1.0.0"}}}"#,
    );
    repository.write("build.js", program);
    repository.commit("A greedy build");
    let pushed = repository.push();
    assert!(!pushed.ok, "{}", pushed.text);
    assert!(repository.git_ok(&["ls-remote", "berth"]).is_empty(), "the branch moved");
    pushed.text
}

/// Starts the control plane again with these options.
fn control_plane_with(berth: &Installation, options: &str) {
    let path = berth.data.join("berthd.options");
    std::fs::write(&path, format!("{options}\n")).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let old = berth.process("control");
    assert!(berth.kill("control") && berth.comes_again("control", old), "no control plane with {options:?}");
    let again = || berth.berth(&["hosts"]).status.success();
    assert!(eventually(Duration::from_secs(30), again), "the control plane does not answer with {options:?}");
}

fn builds(berth: &Installation) {
    control_plane_with(berth, "--build-memory-mib 256 --build-disk-mib 512");
    let memory = "const held = []; for (;;) held.push(Buffer.alloc(16 << 20, 1));";
    let said = pushed(berth, "greedy-memory", memory);
    assert!(said.contains("B15") && said.contains("256 MiB"), "{said}");
    let disk = "const fs = require('fs'); const to = fs.openSync('filler', 'w'); \
                for (;;) fs.writeSync(to, Buffer.alloc(1 << 20, 1));";
    let said = pushed(berth, "greedy-disk", disk);
    assert!(said.contains("B16") && said.contains("512 MiB"), "{said}");
    control_plane_with(berth, "--build-seconds 15");
    let said = pushed(berth, "greedy-time", "setInterval(() => {}, 1000);");
    assert!(said.contains("B17") && said.contains("15 seconds"), "{said}");
    control_plane_with(berth, "");
    // What they used is there for others.
    Repository::of_app(berth, "e2e-after-greed", "tests/apps/probe").push_ok();
    body_must_come_to_have(berth, "e2e-after-greed", "/", "version=one");
}

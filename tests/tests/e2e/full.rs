//! What is used up: the host's disk and a build's quota. Whoever uses it up is told; nobody else notices.

use std::time::Duration;

use berth_tests::installation::{Installation, eventually};
use berth_tests::repository::Repository;
use berth_tests::traffic::{body_must_come_to_have, get};

use crate::Scenario;

/// Run alone: what they use up others would miss.
pub const ALONE: &[Scenario] =
    &[("a_disk_filler_must_not_keep_others_from_deploying_scaling_and_writing", disk_filler)];

fn disk_filler(berth: &Installation) {
    let (filler, other) = ("e2e-filler", "e2e-beside-filler");
    Repository::of_app(berth, filler, "tests/apps/probe").push_ok();
    berth.berth_ok(&["scale", "web=2", "web.disk=5G", "-a", filler]);
    // Each answers with EDQUOT (122) when there is nothing more to have; the requests go to both.
    let full = || {
        let answer = get(berth, filler, "/disk?mib=4000&keep=1");
        assert_eq!((answer.status, answer.body.trim()), (507, "errno=122"));
        berth.berth_ok(&["hosts"]).contains("D13")
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

//! What a push builds: each pack with real dependencies, layers reused, and what a failing build says.

use berth_tests::installation::Installation;
use berth_tests::repository::Repository;
use berth_tests::traffic::{body_must_come_to_have, get};

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_python_app_with_real_dependencies_must_serve_its_commit", python),
    ("a_node_app_with_a_lockfile_must_serve_its_commit", node),
    ("a_static_site_must_be_served_without_dotfiles", static_site),
    ("a_worker_must_run_without_web", worker),
    ("an_unchanged_lockfile_must_install_nothing", cached),
    ("a_directory_without_git_must_deploy", without_git),
];

fn python(berth: &Installation) {
    let repository = Repository::of_app(berth, "e2e-python", "demo/apps/python");
    let head = repository.git_ok(&["rev-parse", "HEAD"]);
    let said = repository.push_ok();
    assert!(said.contains("remote: -----> "), "no build progress:\n{said}");
    assert!(said.contains("v1"), "no release:\n{said}");
    assert!(said.contains("http://e2e-python.localhost"), "no URL:\n{said}");
    body_must_come_to_have(berth, "e2e-python", "/", &head);
    // What a build only borrows is in no layer.
    let layers = std::fs::read_dir(berth.data.join("agent/pool/layers")).into_iter().flatten().flatten();
    let kept: Vec<_> =
        layers.filter(|l| l.file_name().to_string_lossy().starts_with("key-")).map(|l| l.path()).collect();
    assert!(!kept.is_empty(), "the build left no layer");
    for stray in ["root/berth", "root/etc/ssl", "root/tmp/berth-env"] {
        assert!(!kept.iter().any(|layer| layer.join(stray).exists()), "a layer has {stray}");
    }
}

fn node(berth: &Installation) {
    let repository = Repository::of_app(berth, "e2e-node", "demo/apps/node");
    let head = repository.git_ok(&["rev-parse", "HEAD"]);
    repository.push_ok();
    body_must_come_to_have(berth, "e2e-node", "/", &head);
}

fn static_site(berth: &Installation) {
    let repository = Repository::of_app(berth, "e2e-static", "demo/apps/static");
    repository.write(".secret", "not for the public");
    repository.commit("With a dotfile");
    repository.push_ok();
    body_must_come_to_have(berth, "e2e-static", "/", "<html");
    assert_eq!(get(berth, "e2e-static", "/.secret").status, 404);
    assert_eq!(get(berth, "e2e-static", "/missing").status, 404);
}

fn worker(berth: &Installation) {
    let repository = Repository::of_app(berth, "e2e-worker", "demo/apps/worker");
    repository.push_ok();
    if berth.berth_json(&["ps", "-a", "e2e-worker"]).as_array().is_some_and(Vec::is_empty) {
        berth.berth_ok(&["scale", "worker=1", "-a", "e2e-worker"]);
    }
    let instances = berth.berth_json(&["ps", "-a", "e2e-worker"]);
    let states: Vec<_> =
        instances.as_array().into_iter().flatten().map(|i| (&i["name"], &i["state"])).collect();
    assert!(states.iter().any(|(name, state)| *name == "worker.1" && *state == "healthy"), "{states:?}");
    assert_eq!(get(berth, "e2e-worker", "/").status, 503);
}

fn cached(berth: &Installation) {
    let repository = Repository::of_app(berth, "e2e-cached", "demo/apps/python");
    repository.push_ok();
    repository.write("README.md", "changed");
    repository.commit("Only the README");
    let said = repository.push_ok();
    assert!(said.to_lowercase().contains("cached"), "the dependencies were not reused:\n{said}");
    assert!(!said.contains("Installed "), "something was installed again:\n{said}");
}

fn without_git(berth: &Installation) {
    berth.berth_ok(&["apps", "create", "e2e-tar"]);
    let app = berth_tests::installation::root().join("tests/apps/probe");
    let output = berth.command("berth").args(["deploy", ".", "-a", "e2e-tar"]).current_dir(app).output();
    let output = output.unwrap_or_else(|e| panic!("berth deploy: {e}"));
    assert!(output.status.success(), "{}", berth_tests::installation::both(&output));
    body_must_come_to_have(berth, "e2e-tar", "/", "version=one");
}

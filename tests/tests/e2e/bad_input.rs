//! Bad input gets a clear error with a code, and nothing is lost or half done.

use berth_tests::installation::{Installation, both};
use berth_tests::repository::Repository;
use berth_tests::traffic::body_must_come_to_have;

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    ("sources_that_cannot_be_built_must_be_refused_with_their_code", sources),
    ("another_branch_must_be_refused_with_a_sentence", other_branch),
    ("a_wrong_token_must_be_refused", wrong_token),
    ("two_pushes_at_once_must_lose_none", two_at_once),
    ("the_command_line_must_refuse_what_cannot_be", command_line),
    ("a_broken_build_must_leave_the_running_app_alone", broken_build),
];

/// A name, the files of the source (path and text), and the code (or words) that its push must be refused with.
type BadSource = (&'static str, &'static [(&'static str, &'static str)], &'static str);

fn sources(berth: &Installation) {
    let cases: [BadSource; 7] = [
        ("nopack", &[("readme.txt", "nothing to run")], "B10"),
        ("procfile", &[("Procfile", "web python server.py\n")], "B12"),
        (
            "runtime",
            &[("requirements.txt", ""), ("Procfile", "web: python -V\n"), ("runtime.txt", "python-3.12.4\n")],
            "there are 3.11, 3.13",
        ),
        (
            "version",
            &[("requirements.txt", ""), ("Procfile", "web: python -V\n"), (".python-version", "2.6\n")],
            "B13",
        ),
        (
            "dependency",
            &[("requirements.txt", "berth-no-such-package-xyzzy==1\n"), ("Procfile", "web: python -V\n")],
            "B14",
        ),
        ("toml", &[("Procfile", "web: sleep 1\n"), ("berth.toml", "[health\n")], "B19"),
        ("lockfile", &[("package.json", "{\"name\":\"x\"}"), ("package-lock.json", "{")], "B1"),
    ];
    for (name, files, code) in cases {
        let repository = Repository::of_app(berth, &format!("e2e-bad-{name}"), "tests/apps/empty");
        for (path, text) in files {
            repository.write(path, text);
        }
        repository.commit("Something that cannot be built");
        let pushed = repository.push();
        assert!(!pushed.ok, "{name} was accepted:\n{}", pushed.text);
        assert!(pushed.text.contains(code), "{name}: no {code}:\n{}", pushed.text);
        let branch = repository.git_ok(&["ls-remote", "berth"]);
        assert_eq!(branch, "", "{name}: the branch moved");
    }
}

fn other_branch(berth: &Installation) {
    let repository = Repository::of_app(berth, "e2e-branch", "tests/apps/probe");
    let pushed = repository.push_ref("main:feature");
    assert!(!pushed.ok && pushed.text.contains("G10"), "{}", pushed.text);
    repository.push_ok();
    let pushed = repository.push_ref(":main");
    assert!(!pushed.ok && pushed.text.contains("G14"), "{}", pushed.text);
}

fn wrong_token(berth: &Installation) {
    let repository = Repository::of_app(berth, "e2e-token", "tests/apps/probe");
    let pushed = repository.with_token("berth_wrong").push();
    assert!(!pushed.ok, "{}", pushed.text);
    let output = berth.command("berth").args(["apps"]).env("BERTH_TOKEN", "berth_wrong").output();
    let output = output.unwrap_or_else(|e| panic!("berth apps: {e}"));
    assert_eq!(output.status.code(), Some(4), "{}", both(&output));
    assert!(both(&output).contains("A10"), "{}", both(&output));
}

fn two_at_once(berth: &Installation) {
    let first = Repository::of_app(berth, "e2e-two", "tests/apps/probe");
    first.push_ok();
    first.write("VERSION", "two");
    first.commit("Second version");
    let results = std::thread::scope(|scope| {
        let pushes = [scope.spawn(|| first.push()), scope.spawn(|| first.push())];
        pushes.map(|push| push.join().unwrap_or_else(|_| panic!("a push panicked")))
    });
    assert!(results.iter().any(|p| p.ok), "{results:?}");
    for refused in results.iter().filter(|p| !p.ok) {
        assert!(refused.text.contains("G11"), "{}", refused.text);
    }
    body_must_come_to_have(berth, "e2e-two", "/", "version=two");
}

fn command_line(berth: &Installation) {
    berth.berth_ok(&["apps", "create", "e2e-cli"]);
    let cases: [(&[&str], &str); 10] = [
        (&["apps", "create", "Not_A_Name"], "a-z"),
        (&["apps", "create", "e2e-cli"], "A14"),
        (&["apps", "info", "-a", "e2e-nobody"], "A12"),
        (&["config", "set", "1BAD=x", "-a", "e2e-cli"], "digit"),
        (&["config", "set", "PORT=1", "-a", "e2e-cli"], "PORT"),
        (&["scale", "web.memory=1K", "-a", "e2e-cli"], "memory"),
        (&["rollback", "-a", "e2e-cli"], "A16"),
        (&["scale", "web.memory=900G", "web.memory.floor=900G", "-a", "e2e-cli"], "A17"),
        (&["scale", "web.memory=lots", "-a", "e2e-cli"], "berth scale --help"),
        (&["config", "set", "A=1", "--appp", "e2e-cli"], "--app"),
    ];
    for (args, words) in cases {
        let output = berth.berth(args);
        assert!(!output.status.success(), "{args:?} was accepted");
        assert!(both(&output).contains(words), "{args:?}: no {words:?} in:\n{}", both(&output));
    }
}

fn broken_build(berth: &Installation) {
    let app = "e2e-broken";
    let repository = Repository::of_app(berth, app, "tests/apps/probe");
    let good = repository.git_ok(&["rev-parse", "HEAD"]);
    repository.push_ok();
    repository.write("requirements.txt", "berth-no-such-package-xyzzy==1\n");
    repository.commit("A dependency that does not exist");
    let pushed = repository.push();
    assert!(!pushed.ok && pushed.text.contains("B14"), "{}", pushed.text);
    assert!(pushed.text.contains("berth-no-such-package-xyzzy"), "{}", pushed.text);
    assert!(repository.git_ok(&["ls-remote", "berth", "refs/heads/main"]).starts_with(&good));
    body_must_come_to_have(berth, app, "/", "version=one");
}

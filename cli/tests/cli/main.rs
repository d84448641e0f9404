//! The command line from outside: what it prints, sends, keeps and exits with, against a scripted control plane.

// A test's own code ends the test by panicking; that is how it says what it saw.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it saw by panicking")]

mod fake;

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use berth_wire::api::{App, FormationChange, Release};
use fake::{Fake, TOKEN, release};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A person at a terminal: a home of their own, a folder to work in, no environment from outside.
struct Person {
    home: TempDir,
    folder: TempDir,
}

impl Person {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// Somebody who is signed in, in a repository whose remote is the app `shop`.
    fn signed_in(fake: &Fake) -> Self {
        let person = Self::new();
        person.git(&["init", "-q"]);
        person.ok(&["login", &fake.url(), "--token", TOKEN]);
        person.ok(&["apps", "create", "shop"]);
        person
    }

    fn prepare(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.home.path()).timeout(std::time::Duration::from_secs(60));
        command
    }

    fn berth(&self, arguments: &[&str]) -> Output {
        self.prepare(assert_cmd::cargo::cargo_bin!("berth")).args(arguments).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.berth(arguments);
        assert!(output.status.success(), "berth {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Fails with this status; answers what it said.
    #[track_caller]
    fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.berth(arguments);
        assert_eq!(output.status.code(), Some(status), "berth {arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = self.prepare(Path::new("git")).args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

#[test]
fn login_must_verify_keep_and_hand_the_token_to_git() {
    let (fake, person) = (Fake::start(), Person::new());
    assert!(person.fails(4, &["login", &fake.url(), "--token", "wrong"]).contains("A10"));
    assert!(!person.home.path().join(".config/berth/credentials.toml").exists(), "a refused token was kept");

    let login = person
        .prepare(assert_cmd::cargo::cargo_bin!("berth"))
        .args(["login", &fake.url()])
        .write_stdin(format!("{TOKEN}\n"))
        .output()
        .unwrap();
    assert!(login.status.success(), "{login:?}");
    assert!(String::from_utf8_lossy(&login.stdout).contains("team default, token me"));
    let filled = person
        .prepare(Path::new("git"))
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(["credential", "fill"])
        .write_stdin(format!("protocol=http\nhost={}\n\n", fake.address))
        .output()
        .unwrap();
    let filled = String::from_utf8(filled.stdout).unwrap();
    assert!(
        filled.contains("username=berth\n") && filled.contains(&format!("password={TOKEN}\n")),
        "{filled}"
    );

    person.ok(&["logout"]);
    assert!(person.fails(4, &["apps"]).contains("berth login"));
}

#[test]
fn an_app_must_be_found_from_the_remote_that_create_made() {
    let fake = Fake::start();
    let person = Person::signed_in(&fake);
    assert_eq!(person.git(&["remote", "get-url", "berth"]), format!("{}/git/shop.git", fake.url()));
    assert_eq!(person.ok(&["url"]), "http://shop.localhost:8080/\n");
    assert!(person.fails(5, &["apps", "info", "--app", "other"]).contains("berth explain A12"));
    assert!(person.fails(2, &["apps", "destroy", "shop"]).contains("--confirm shop"));
    person.fails(2, &["apps", "destroy", "shop", "--confirm", "shop2"]);
    person.ok(&["apps", "destroy", "shop", "--confirm", "shop"]);
    assert_eq!(person.git(&["remote"]), "");
    assert!(person.fails(2, &["ps"]).contains("BERTH_APP"));
}

#[test]
fn a_change_must_be_awaited_and_its_failure_explained() {
    let fake = Fake::start();
    let person = Person::signed_in(&fake);
    fake.script.lock().unwrap().releases =
        vec![release("rolling", Value::Null), release("current", Value::Null)];
    assert_eq!(person.ok(&["config", "set", "A=b=c"]), "Set A.\nv2 is live.\n");
    let sent: Value = serde_json::from_slice(&fake.received("/v1/apps/shop/config")).unwrap();
    assert_eq!(sent, json!({"set": {"A": "b=c"}, "unset": []}));

    let trouble =
        json!({"code": "R16", "message": "web.1 exited with status 1", "log_tail": ["no database"]});
    fake.script.lock().unwrap().releases = vec![release("rolling", Value::Null), release("failed", trouble)];
    let said = person.fails(6, &["scale", "web=2", "web.memory=256M"]);
    for part in ["R16", "web.1 exited with status 1", "no database", "berth explain R16"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let sent: Vec<FormationChange> =
        serde_json::from_slice(&fake.received("/v1/apps/shop/formation")).unwrap();
    assert_eq!(sent[0].quota.memory_bytes.unwrap().max, Some(256 << 20));
    let said: Value = serde_json::from_str(&person.fails(6, &["scale", "web=2", "--json"])).unwrap();
    assert_eq!((&said["code"], &said["log_tail"][0]), (&json!("R16"), &json!("no database")));
}

#[test]
fn json_must_have_the_shapes_of_the_api_and_nothing_around() {
    let fake = Fake::start();
    let person = Person::signed_in(&fake);
    let apps: Vec<App> = serde_json::from_str(&person.ok(&["apps", "--json"])).unwrap();
    assert_eq!(apps[0].name.as_str(), "shop");
    let release: Release = serde_json::from_str(&person.ok(&["config", "set", "A=1", "--json"])).unwrap();
    assert_eq!(release.version, 2);
    let lines = person.ok(&["logs", "--json"]);
    assert!(
        lines.lines().all(|line| serde_json::from_str::<berth_wire::log::LogLine>(line).is_ok()),
        "{lines}"
    );
}

#[test]
fn output_that_is_no_terminal_must_have_no_colour_and_no_progress() {
    let fake = Fake::start();
    let person = Person::signed_in(&fake);
    for arguments in [&["logs"][..], &["apps"], &["status"], &["config", "set", "A=1"]] {
        let output = person.berth(arguments);
        assert!(!output.stdout.contains(&0x1b) && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
    assert!(person.ok(&["logs"]).contains("2026-11-24T16:20:00.123456+00:00 app[web.1]: Ünïcode\n"));
}

#[test]
fn a_followed_log_must_go_on_after_a_break_and_show_each_line_once() {
    let fake = Fake::start();
    let person = Person::signed_in(&fake);
    fake.script.lock().unwrap().followed = vec![vec![1, 2], vec![1, 2, 3], vec![3, 4]];
    let output = person.berth(&["logs", "-f"]);
    assert_eq!(output.status.code(), Some(5), "the app is gone in the end: {output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let texts: Vec<&str> = said.lines().filter_map(|line| line.split("]: ").nth(1)).collect();
    assert_eq!(texts, ["line 1", "line 2", "line 3", "line 4"]);
}

#[test]
fn deploy_must_send_the_folder_show_the_build_and_await_the_release() {
    let fake = Fake::start();
    let person = Person::signed_in(&fake);
    assert!(person.fails(1, &["deploy", "."]).contains("B11"), "an empty folder");
    assert!(person.fails(2, &["deploy", "gone"]).contains("gone is not a folder"));
    std::fs::write(person.folder.path().join("app.py"), "print(1)\n").unwrap();
    let said = person.ok(&["deploy", "."]);
    assert_eq!(said, "-----> Python app detected\nv2 is live.\n");
    let sent = fake.received("/v1/apps/shop/builds");
    let mut archive = tar::Archive::new(sent.as_slice());
    let names: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(names, [Path::new("app.py")]);

    let trouble = json!({"code": "B14", "message": "no flsk==3.0", "log_tail": []});
    fake.script.lock().unwrap().build = Some(json!({
        "id": "01980000-0000-7000-8000-000000000003", "created_at": "2026-01-01T00:00:00Z", "ended_at": null,
        "commit": null, "status": "failed", "trouble": trouble, "release": null}));
    assert!(person.fails(6, &["deploy", "."]).contains("B14"));
}

#[test]
fn what_a_build_prints_must_do_nothing_to_the_terminal() {
    let fake = Fake::start();
    let person = Person::signed_in(&fake);
    std::fs::write(person.folder.path().join("app.py"), "print(1)\n").unwrap();
    let hostile =
        "ü\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{9b}31m\n1%\r100%\n\u{1b}[1mbold\u{1b}[0m \u{1b}[3".as_bytes();
    let mut shown = None;
    for cut in [1, 2, 3, 7, hostile.len()] {
        fake.script.lock().unwrap().build_log = hostile.chunks(cut).map(<[u8]>::to_vec).collect();
        let said = person.ok(&["deploy", "."]);
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "cut every {cut}: {said:?}");
        assert_eq!(shown.get_or_insert_with(|| said.clone()), &said, "cut every {cut}");
    }
    assert!(shown.unwrap().starts_with("ü^[]52;c;ZXZpbA==^G^[[2J\\u{9b}31m\n100%\nbold ^[[3\n"));
}

#[test]
fn a_stack_must_be_sent_once() {
    let fake = Fake::start();
    let person = Person::signed_in(&fake);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    builder.append_data(&mut header, "etc/os-release", &b"a=b"[..]).unwrap();
    let file = person.folder.path().join("stack.tar");
    std::fs::write(&file, builder.into_inner().unwrap()).unwrap();
    for _ in 0..2 {
        let said = person.ok(&["stacks", "import", "berth-13", "stack.tar"]);
        assert!(said.starts_with("Imported berth-13 as stacks/berth-13@sha256:"), "{said}");
    }
    assert_eq!(fake.script.lock().unwrap().received["/upload/1"].len(), 2, "one layer, one configuration");
    std::fs::write(&file, "no tar").unwrap();
    assert!(person.fails(1, &["stacks", "import", "berth-13", "stack.tar"]).contains("neither a tar"));
}

#[test]
fn what_cannot_be_reached_must_be_told_from_what_is_refused() {
    let person = Person::new();
    // Port 9 of loopback: discard (RFC 863), which nobody runs.
    assert!(person.fails(3, &["login", "http://127.0.0.1:9", "--token", "x"]).contains("D14"));
    assert!(person.fails(2, &["login", "nonsense", "--token", "x"]).contains("http://HOST:PORT"));
    person.fails(2, &["config", "set", "-a", "Bad_Name", "A=1"]);
    person.fails(1, &["doctor"]);
}

#[test]
fn each_shell_must_be_given_its_completions() {
    let person = Person::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = person.ok(&["completions", shell]);
        assert!(script.contains("rollback"), "{shell}: {script}");
    }
    person.fails(2, &["completions", "tcsh"]);
}

#[test]
fn explain_must_work_without_anything() {
    let person = Person::new();
    assert!(person.ok(&["explain", "r10"]).starts_with("# R10: Boot timeout"));
    assert!(person.ok(&["explain"]).lines().count() > berth_wire::code::Code::ALL.len());
    assert!(person.fails(5, &["explain", "Z99"]).contains("Z99"));
}

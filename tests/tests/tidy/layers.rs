//! Who may touch what: the invariants of ARCHITECTURE.md that can be read off the text.

use std::collections::BTreeSet;

use regex::Regex;

use crate::tree::Source;
use crate::{Violation, lexer, tree};

/// Code that decides. It gets clock, ids and the state of the world as arguments.
const PURE: &[&str] = &[
    "control-plane/src/domain/",
    "control-plane/src/plan/",
    "agent/src/reconcile/plan.rs",
    "agent/src/reconcile/plan/",
    "agent/src/bundle/",
];

/// What code that decides does not mention. Constants of libc decide nothing and are fine; its functions are calls.
const IMPURE: &str = r"\b(sqlx|axum|tokio|nix|rustix|reqwest|hyper)::|\blibc::\w+\(|\b(std::)?(fs|process|net|thread)::\w|\benv::(var|args|current|temp|home|set|remove)|\bSystemTime\b|\bInstant\b|\bTimestamp::now\b|\bZoned::now\b|\bUuid::(new_v4|now_v7)\b|\bnew_v4\(";

/// The only folder with SQL.
const STORE: &str = "control-plane/src/store";

/// Where the agent may speak to the kernel.
const KERNEL: &[&str] =
    &["cgroup", "network", "image", "disk", "launch", "container", "installation", "doctor"];

fn is_pure(path: &str) -> bool {
    PURE.iter().any(|place| path.starts_with(place) || path.strip_suffix(".rs") == place.strip_suffix('/'))
}

/// Invariant 1: code that decides imports no I/O and no clock.
pub fn pure(tree: &[Source]) -> Vec<Violation> {
    let impure = regex(IMPURE);
    let mut violations = Vec::new();
    for source in tree.iter().filter(|source| is_pure(&source.path)) {
        let mut seen = BTreeSet::new();
        for found in impure.find_iter(&source.shipped).filter(|found| seen.insert(found.as_str())) {
            let line = source.line_of(found.start());
            let what = format!("line {line}: decides, so it must not use {}", found.as_str());
            violations.push(Violation::new(source, what));
        }
    }
    violations
}

/// Invariant 2: SQL is in the store only.
pub fn sql(tree: &[Source]) -> Vec<Violation> {
    let statement = regex(
        r"(?is)^\s*(SELECT\s.+\sFROM\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|CREATE\s+(TABLE|INDEX)\s|ALTER\s+TABLE\s|PRAGMA\s|BEGIN\s+(IMMEDIATE|EXCLUSIVE))",
    );
    let mut violations = Vec::new();
    for source in tree.iter().filter(|source| source.is_rust() && !source.path.starts_with(STORE)) {
        for (at, text) in lexer::strings(&source.text) {
            let shipped = source.shipped.len() > at && !source.shipped[..at].is_empty();
            if shipped && statement.is_match(text) && is_shipped(source, at) {
                let what = format!("line {}: SQL belongs into {STORE}/", source.line_of(at));
                violations.push(Violation::new(source, what));
            }
        }
        if let Some(at) = source.shipped.find("sqlx::query") {
            violations.push(Violation::new(
                source,
                format!("line {}: a query outside {STORE}/", source.line_of(at)),
            ));
        }
    }
    violations
}

/// A literal is blank in every version of the code, so its line tells whether it is inside a test.
fn is_shipped(source: &Source, at: usize) -> bool {
    let before = |text: &str| text[..at].bytes().rev().find(|b| !b.is_ascii_whitespace());
    before(&source.shipped) == before(&source.code)
}

/// Invariant 2: of the agent, only the folders named for a resource of the kernel call it.
pub fn kernel(tree: &[Source]) -> Vec<Violation> {
    let call = regex(r"\b(nix|rustix)::|\blibc::\w+\(");
    let mut violations = Vec::new();
    for source in tree {
        let Some(inside) = source.path.strip_prefix("agent/src/") else { continue };
        let room = inside.split(['/', '.']).next().unwrap_or_default();
        if KERNEL.contains(&room) {
            continue;
        }
        if let Some(found) = call.find(&source.shipped) {
            let line = source.line_of(found.start());
            let what = format!("line {line}: {} outside the folders that touch the kernel", found.as_str());
            violations.push(Violation::new(source, what));
        }
    }
    violations
}

/// Invariant 3: agent and control plane know `wire`, never each other; `wire` knows nobody.
pub fn crates(tree: &[Source]) -> Vec<Violation> {
    let allowed: &[(&str, &[&str])] = &[
        ("wire/Cargo.toml", &[]),
        ("cli/Cargo.toml", &["berth-wire"]),
        ("control-plane/Cargo.toml", &["berth-wire"]),
        ("agent/Cargo.toml", &["berth-wire"]),
        ("agent/launcher/Cargo.toml", &["berth-wire"]),
        ("agent/edge/Cargo.toml", &["berth-wire"]),
    ];
    let dependency = regex(r#"(?m)^(berth-[a-z-]+)(\.workspace)?\s*="#);
    let mut violations = Vec::new();
    for source in tree {
        let Some((_, allowed)) = allowed.iter().find(|(path, _)| *path == source.path) else { continue };
        // A test may hold one side against the other; what is shipped may not.
        let shipped = source.text.split("[dev-dependencies]").next().unwrap_or_default();
        for found in dependency.captures_iter(shipped) {
            let name = &found[1];
            if !allowed.contains(&name) {
                violations.push(Violation::new(source, format!("must not depend on {name}")));
            }
        }
    }
    violations
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"))
}

#[test]
fn impure_deciding_code_must_be_found() {
    for line in [
        "use tokio::time;",
        "use std::fs;\nfs::read(x)",
        "Timestamp::now()",
        "let i = Instant::now();",
        "libc::kill(1, 9)",
        "env::var(x)",
        "Uuid::now_v7()",
    ] {
        let tree = tree::sample(&[("control-plane/src/plan/place.rs", line)]);
        assert!(!pure(&tree).is_empty(), "{line}");
    }
    for path in [
        "control-plane/src/domain/mod.rs",
        "agent/src/reconcile/plan.rs",
        "agent/src/bundle/a.rs",
        "control-plane/src/plan.rs",
    ] {
        assert_eq!(pure(&tree::sample(&[(path, "use axum::Router;")])).len(), 1, "{path}");
    }
    let tree = tree::sample(&[
        (
            "control-plane/src/plan/place.rs",
            "// tokio::x\nfn f(now: Timestamp) {}\n#[cfg(test)]\nmod tests { use tokio::time; }",
        ),
        ("control-plane/src/tasks/plan_hosts.rs", "use tokio::time;"),
        ("agent/src/bundle/seccomp.rs", "const READ: i64 = libc::SYS_read; std::env::consts::ARCH"),
    ]);
    assert_eq!(pure(&tree), []);
}

#[test]
fn sql_outside_the_store_must_be_found() {
    let statement = "fn f() { q(\"SELECT id FROM apps\") }";
    assert_eq!(sql(&tree::sample(&[("control-plane/src/api/apps.rs", statement)])).len(), 1);
    assert_eq!(
        sql(&tree::sample(&[("control-plane/src/git/mod.rs", "fn f() { sqlx::query!(x) }")])).len(),
        1
    );
    let fine = [
        ("control-plane/src/store/apps.rs", statement),
        ("cli/src/main.rs", "fn f() { q(\"select an app from the list\") }"),
        ("cli/src/a.rs", "fn g() {}\n#[cfg(test)]\nmod tests { fn f() { q(\"DELETE FROM x \") } }"),
    ];
    assert_eq!(sql(&tree::sample(&fine[..1])), []);
    assert_eq!(sql(&tree::sample(&fine[2..])), []);
}

#[test]
fn a_kernel_call_from_elsewhere_must_be_found() {
    assert_eq!(kernel(&tree::sample(&[("agent/src/reconcile/mod.rs", "use rustix::fs;")])).len(), 1);
    let fine = [("agent/src/cgroup/mod.rs", "use rustix::fs;"), ("agent/launcher/src/main.rs", "libc::x()")];
    assert_eq!(kernel(&tree::sample(&fine)), []);
}

#[test]
fn a_dependency_across_the_wire_must_be_found() {
    let bad = [
        ("control-plane/Cargo.toml", "berth-agent.workspace = true"),
        ("agent/Cargo.toml", "berth-control-plane = { path = \"..\" }"),
        ("wire/Cargo.toml", "berth-cli.workspace = true"),
    ];
    assert_eq!(crates(&tree::sample(&bad)).len(), 3);
    let fine = "berth-wire.workspace = true\n[dev-dependencies]\nberth-edge.workspace = true\n";
    assert_eq!(crates(&tree::sample(&[("agent/Cargo.toml", fine)])), []);
}

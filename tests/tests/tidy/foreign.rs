//! What is not ours: other people's code, addresses of registries, paths of somebody's machine.

use crate::tree::Source;
use crate::{Violation, tree};

/// Folders and endings under which other people's code is usually kept.
const THIRD_PARTY: &[&str] = &["vendor", "third_party", "third-party", "node_modules", "bower_components"];
const BUILT: &[&str] =
    &[".min.js", ".min.css", ".so", ".a", ".o", ".dll", ".exe", ".jar", ".whl", ".deb", ".wasm"];
/// Larger files are hardly written by hand; lock files are.
const FILE_BYTES_MAX: usize = 256 * 1024;

fn is_lock(path: &str) -> bool {
    path.ends_with(".lock") || path.ends_with("package-lock.json")
}

/// Nothing of others is in the tree: it comes from package registries, pinned by a lock file.
pub fn third_party(tree: &[Source]) -> Vec<Violation> {
    let what = |source: &Source| {
        let path = &source.path;
        if path.split('/').any(|part| THIRD_PARTY.contains(&part)) {
            Some("is in a folder for other people's code".to_owned())
        } else if BUILT.iter().any(|end| path.ends_with(end)) {
            Some("is built, not written".to_owned())
        } else if source.bytes.contains(&0) && !path.ends_with(".png") && !path.ends_with(".ico") {
            Some("is no text".to_owned())
        } else if source.bytes.len() > FILE_BYTES_MAX && !is_lock(path) {
            Some(format!("has {} bytes, more than anybody writes by hand", source.bytes.len()))
        } else if path != "LICENSE"
            && !path.starts_with("tests/tests/tidy/")
            && source.text.contains("Copyright (")
        {
            Some("has somebody's copyright notice".to_owned())
        } else {
            None
        }
    };
    tree.iter().filter_map(|source| what(source).map(|what| Violation::new(source, what))).collect()
}

/// Hosts of package registries, in pieces so that this file does not name them. Clients find them by themselves.
fn registries() -> Vec<String> {
    [
        ["crates", "io"],
        ["pypi", "org"],
        ["pythonhosted", "org"],
        ["npmjs", "org"],
        ["npmjs", "com"],
        ["docker", "io"],
        ["ghcr", "io"],
        ["gcr", "io"],
        ["quay", "io"],
        ["deb.debian", "org"],
        ["rubygems", "org"],
        ["nodejs", "org"],
        ["golang", "org"],
    ]
    .iter()
    .map(|pieces| pieces.join("."))
    .collect()
}

/// No file names a registry: whoever runs Berth may have a mirror. (Cargo writes its index into its own lock file, and a
/// Debian package is called like a registry: what `apt-get install` is given are packages.)
pub fn registry_host(tree: &[Source]) -> Vec<Violation> {
    let registries = registries();
    let mut violations = Vec::new();
    for source in tree.iter().filter(|source| source.path != "Cargo.lock") {
        for host in &registries {
            let installed = |at: usize| {
                let line = source.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
                source.text[line..at].contains("apt-get install ")
            };
            let mut found = source.text.match_indices(host.as_str()).map(|(at, _)| at);
            if let Some(at) = found.find(|at| !installed(*at)) {
                violations.push(Violation::new(source, format!("line {}: names {host}", source.line_of(at))));
            }
        }
    }
    violations
}

/// No file has a path of the machine it was written on.
pub fn machine_path(tree: &[Source]) -> Vec<Violation> {
    let starts = ["work", "Users"].map(|name| [name, ""].join("/"));
    let mut violations = Vec::new();
    for source in tree {
        for start in &starts {
            let found =
                source.text.match_indices(start.as_str()).find(|(at, _)| is_absolute(&source.text, *at));
            if let Some((at, _)) = found {
                let line = source.line_of(at);
                violations.push(Violation::new(source, format!("line {line}: a path under /{start}")));
            }
        }
    }
    violations
}

/// Whether a slash stands before, and before that nothing that could be part of a path.
fn is_absolute(text: &str, at: usize) -> bool {
    let before = &text[..at];
    before.strip_suffix('/').is_some_and(|rest| {
        !rest.ends_with(|c: char| c.is_alphanumeric() || "/._-}$)*:>…{\"'".contains(c))
            || rest.ends_with(['"', '\'']) && !rest.ends_with("\"\"")
    })
}

#[test]
fn other_peoples_code_must_be_found() {
    let notice = ["Copyright", "(c) 2020 Somebody"].join(" ");
    let big = "x".repeat(FILE_BYTES_MAX + 1);
    let bad = [
        ("vendor/a.rs", ""),
        ("dashboard/node_modules/a.js", ""),
        ("a.min.js", ""),
        ("a.bin", "\0"),
        ("a.rs", notice.as_str()),
        ("b.rs", big.as_str()),
    ];
    assert_eq!(third_party(&tree::sample(&bad)).len(), bad.len());
    assert_eq!(third_party(&tree::sample(&[("Cargo.lock", &big), ("LICENSE", &notice)])), []);
}

#[test]
fn a_registrys_name_must_be_found() {
    for host in registries() {
        assert_eq!(
            registry_host(&tree::sample(&[("a.sh", &format!("curl https://{host}/x"))])).len(),
            1,
            "{host}"
        );
    }
    assert_eq!(registry_host(&tree::sample(&[("Cargo.lock", &registries()[0])])), []);
    assert_eq!(
        registry_host(&tree::sample(&[("a.sh", &format!("apt-get install -y {}", registries()[5]))])),
        []
    );
}

#[test]
fn a_path_of_somebodys_machine_must_be_found() {
    for start in ["work", "Users"] {
        let text = format!("cd /{start}/me");
        assert_eq!(machine_path(&tree::sample(&[("a.sh", &text)])).len(), 1, "{text}");
    }
    let fine = ["$data/work/x", "https://a.b/work/x", "<dir>/work/a", "the /work."].join("\n");
    assert_eq!(machine_path(&tree::sample(&[("a.sh", &fine)])), []);
}

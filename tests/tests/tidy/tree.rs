//! The files that rules look at: what git tracks, and what it would track if it were added now.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lexer;

/// One file.
#[derive(Debug, Clone)]
pub struct Source {
    /// From the root of the checkout, with `/`.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its text; empty if it is none.
    pub text: String,
    /// Rust only: the text with comments and the insides of literals blanked.
    pub code: String,
    /// Rust only: the same without what is compiled for tests alone.
    pub shipped: String,
}

impl Source {
    /// A file of this content.
    pub fn new(path: &str, bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap_or_default();
        let code = if path.ends_with(".rs") { lexer::blank(&text) } else { String::new() };
        let shipped = if is_test(path) { String::new() } else { lexer::without_tests(&code) };
        Self { path: path.to_owned(), bytes: bytes.to_vec(), text, code, shipped }
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The number of a byte's line, from 1.
    pub fn line_of(&self, byte: usize) -> usize {
        self.text.as_bytes()[..byte].iter().filter(|&&b| b == b'\n').count() + 1
    }
}

/// Whether a whole file is compiled for tests only.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || path.starts_with("fuzz/")
        || path.contains("/tests/")
        || path.contains("/testing/")
        || ["/tests.rs", "/testing.rs", "_tests.rs"].iter().any(|end| path.ends_with(end))
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Every file of the checkout.
pub fn tree() -> Vec<Source> {
    let root = root();
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output()
        .unwrap_or_else(|error| panic!("git ls-files: {error}"));
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let read = |path: &str| std::fs::read(root.join(path)).ok().map(|bytes| Source::new(path, &bytes));
    // A file that was deleted but is still in the index is gone.
    let mut tree: Vec<Source> = listed.split_terminator('\0').filter_map(read).collect();
    forget_test_modules(&mut tree);
    tree
}

/// A file that its parent declares as `#[cfg(test)] mod name;` is compiled for tests only.
fn forget_test_modules(tree: &mut [Source]) {
    let mut modules = Vec::new();
    for source in tree.iter() {
        // `a/mod.rs`, `a/lib.rs` and `a/main.rs` have their modules in `a/`, `a/b.rs` in `a/b/`.
        let stem = source.path.trim_end_matches(".rs");
        let folder = ["/mod", "/lib", "/main"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem);
        for after in source.code.split("#[cfg(test)]").skip(1) {
            let declared = after.trim_start().trim_start_matches("pub(crate) ").strip_prefix("mod ");
            if let Some((name, _)) = declared.and_then(|rest| rest.split_once(';'))
                && !name.contains('{')
            {
                modules.push(format!("{folder}/{}", name.trim()));
            }
        }
    }
    for source in tree.iter_mut() {
        let stem = source.path.trim_end_matches(".rs");
        if modules.iter().any(|module| stem == module || stem.starts_with(&format!("{module}/"))) {
            source.shipped.clear();
        }
    }
}

#[test]
fn a_module_that_is_declared_for_tests_must_not_count_as_shipped() {
    let mut tree = sample(&[
        (
            "src/plan/mod.rs",
            "mod real;\n#[cfg(test)]\nmod simulation;\n#[cfg(test)]\nmod inside { fn f() {} }",
        ),
        ("src/plan/simulation.rs", "fn f() {}"),
        ("src/plan/simulation/host.rs", "fn f() {}"),
        ("src/plan/real.rs", "fn f() {}"),
    ]);
    forget_test_modules(&mut tree);
    let shipped: Vec<&str> =
        tree.iter().filter(|s| s.shipped.contains("fn f")).map(|s| s.path.as_str()).collect();
    assert_eq!(shipped, ["src/plan/real.rs"]);
}

/// Sample files for the tests of rules.
#[cfg(test)]
pub fn sample(files: &[(&str, &str)]) -> Vec<Source> {
    files.iter().map(|(path, text)| Source::new(path, text.as_bytes())).collect()
}

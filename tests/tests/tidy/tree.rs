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
    listed.split_terminator('\0').filter_map(read).collect()
}

/// Sample files for the tests of rules.
#[cfg(test)]
pub fn sample(files: &[(&str, &str)]) -> Vec<Source> {
    files.iter().map(|(path, text)| Source::new(path, text.as_bytes())).collect()
}

//! A file says in its first lines what belongs in it.

use crate::tree::Source;
use crate::{Violation, tree};

/// Shortest header that can say something: `//! Tests.` cannot.
const HEADER_CHARS_MIN: usize = 20;

/// Rust begins with `//!`, shell and Python with a comment (or docstring) after the first line, SQL with `--`.
pub fn header(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in tree {
        let mut lines = source.text.lines();
        let mut first = lines.next().unwrap_or_default();
        if first.starts_with("#!/") {
            first = lines.next().unwrap_or_default();
        }
        let (marks, what): (&[&str], _) = match source.path.rsplit('.').next() {
            Some("rs") => (&["//! "], "//!"),
            Some("sh") => (&["# "], "#"),
            Some("py") => (&["# ", "\"\"\""], "# or a docstring"),
            Some("sql") => (&["-- "], "--"),
            _ => continue,
        };
        if !marks.iter().any(|mark| first.starts_with(mark)) {
            violations.push(Violation::new(
                source,
                format!("must begin with a header ({what}) that says what belongs in it"),
            ));
        } else if first.chars().count() < HEADER_CHARS_MIN {
            violations.push(Violation::new(source, format!("its header says too little: {first:?}")));
        }
    }
    violations
}

#[test]
fn a_file_without_a_header_must_be_found() {
    let good = [
        ("a.rs", "//! Says what belongs here.\n"),
        ("b.sh", "#!/bin/bash\n# Says what belongs here.\n"),
        ("c.sql", "-- Says what belongs here.\n"),
        ("e.py", "#!/usr/bin/python3\n\"\"\"Says what belongs here.\"\"\"\n"),
        ("d.md", "x"),
    ];
    assert_eq!(header(&tree::sample(&good)), []);
    let bad = [
        ("a.rs", "use x;\n"),
        ("b.rs", "//! Skeleton.\n"),
        ("c.sh", "#!/bin/sh\nset -e\n"),
        ("d.sql", "CREATE"),
        ("e.rs", ""),
    ];
    assert_eq!(header(&tree::sample(&bad)).len(), bad.len());
}

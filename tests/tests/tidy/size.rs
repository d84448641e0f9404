//! How long a file and a function may be.

use crate::lexer::close_of;
use crate::tree::Source;
use crate::{Violation, tree};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Files that people write and read as code.
const CODE: &[&str] = &[".rs", ".sh", ".py", ".js", ".ts", ".svelte", ".sql"];

/// At most 400 lines a file.
pub fn file_lines(tree: &[Source]) -> Vec<Violation> {
    let code = tree.iter().filter(|source| CODE.iter().any(|end| source.path.ends_with(end)));
    code.filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| {
            Violation::new(
                source,
                format!("has {lines} lines, at most {FILE_LINES_MAX}; split it by concern"),
            )
        })
    })
    .collect()
}

/// At most 70 lines of code a function, blank lines and comments not counted.
pub fn function_lines(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in tree.iter().filter(|source| source.is_rust()) {
        for (name, begin, end) in functions(&source.code) {
            let lines = source.code[begin..end].lines().filter(|line| !line.trim().is_empty()).count();
            if lines > FUNCTION_LINES_MAX {
                let line = source.line_of(begin);
                let what = format!("line {line}: fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}");
                violations.push(Violation::new(source, what));
            }
        }
    }
    violations
}

/// Name, begin and end of every function with a body.
fn functions(code: &str) -> Vec<(&str, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name_end = code[at + 3..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
        let name = &code[at + 3..at + 3 + name_end];
        // A signature ends with its body or, in a trait, with a semicolon; `[u8; 4]` has one inside brackets.
        let mut depth = 0_i32;
        let open = code[at..].char_indices().find_map(|(offset, c)| {
            match c {
                '(' | '[' => depth += 1,
                ')' | ']' => depth -= 1,
                '{' if depth == 0 => return Some(Some(at + offset)),
                ';' if depth == 0 => return Some(None),
                _ => {}
            }
            None
        });
        if let (Some(Some(open)), false) = (open, name.is_empty()) {
            found.push((name, at, close_of(code, open)));
        }
    }
    found
}

#[test]
fn a_long_file_must_be_found() {
    let tree = tree::sample(&[
        ("a.rs", &"//! x\n".repeat(401)),
        ("b.rs", &"x\n".repeat(400)),
        ("c.md", &"x\n".repeat(900)),
    ]);
    assert_eq!(file_lines(&tree).len(), 1);
}

#[test]
fn a_long_function_must_be_found_and_comments_must_not_count() {
    let body = |lines: usize| format!("fn f(a: [u8; 4]) {{\n{}}}\n", "    g();\n".repeat(lines));
    let commented = format!("fn f() {{\n{}{}}}\n", "// why\n\n".repeat(80), "g();\n".repeat(60));
    let short_in_trait = format!("trait T {{ fn f(&self);\n fn g(&self) {{}} }}\n{}", "// \n".repeat(100));
    let tree = tree::sample(&[
        ("a.rs", &body(69)),
        ("b.rs", &body(68)),
        ("c.rs", &commented),
        ("d.rs", &short_in_trait),
    ]);
    let found = function_lines(&tree);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, "a.rs");
}

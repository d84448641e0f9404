//! Code that only looks finished: tests that do not run, results that are not looked at, work put off.

use regex::Regex;

use crate::tree::Source;
use crate::{Violation, lexer, tree};

fn find(tree: &[Source], text_of: fn(&Source) -> &str, pattern: &str, why: &str) -> Vec<Violation> {
    let pattern = Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    let mut violations = Vec::new();
    for source in tree {
        for found in pattern.find_iter(text_of(source)) {
            let line = source.line_of(found.start());
            violations.push(Violation::new(source, format!("line {line}: {} {why}", found.as_str().trim())));
        }
    }
    violations
}

/// No test is ignored.
pub fn ignored_test(tree: &[Source]) -> Vec<Violation> {
    find(
        tree,
        |source| &source.code,
        r"#\[ignore\b|\bignore\s*=\s*true",
        "is a test that does not run: mend or delete it",
    )
}

/// No `unwrap` or `expect` in what is shipped.
pub fn unwrap(tree: &[Source]) -> Vec<Violation> {
    find(
        tree,
        |source| &source.shipped,
        r"\.(unwrap|expect|unwrap_err)\(",
        "may end the program; return an error",
    )
}

/// Nothing is put off in the text: it works, or it is absent.
pub fn unfinished(tree: &[Source]) -> Vec<Violation> {
    let own = "tests/tests/tidy/honesty.rs";
    let others: Vec<Source> = tree.iter().filter(|source| source.path != own).cloned().collect();
    let mut violations =
        find(&others, |source| &source.shipped, r"\b(todo|unimplemented)!\s*\(", "puts work off");
    let marks = Regex::new(r"\b(TODO|FIXME|XXX|HACK)\b|\b[Nn]ot (yet )?implemented\b")
        .unwrap_or_else(|e| panic!("{e}"));
    let text = |source: &&Source| !source.path.ends_with(".lock") && !source.path.ends_with("lock.json");
    for source in others.iter().filter(text) {
        for found in marks.find_iter(&source.text) {
            let line = source.line_of(found.start());
            violations.push(Violation::new(source, format!("line {line}: {} puts work off", found.as_str())));
        }
    }
    violations
}

/// Every `#[allow]` says why: with `reason = …`, or in a comment on the line before or after.
pub fn allow(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in tree.iter().filter(|source| source.is_rust()) {
        for (at, _) in source.code.match_indices("[allow(") {
            let number = source.line_of(at);
            let lines: Vec<&str> = source.text.lines().collect();
            let end = at + source.code[at..].find(']').unwrap_or(0);
            let near = [number.checked_sub(2), Some(number - 1)].into_iter().flatten();
            let commented = near.filter_map(|index| lines.get(index)).any(|line| line.contains("// "));
            if !commented && !source.code[at..end].contains("reason") {
                violations
                    .push(Violation::new(source, format!("line {number}: an allow without its reason")));
            }
        }
    }
    violations
}

#[test]
fn an_ignored_test_must_be_found() {
    assert_eq!(ignored_test(&tree::sample(&[("a.rs", "#[test]\n#[ignore]\nfn a() {}")])).len(), 1);
    assert_eq!(ignored_test(&tree::sample(&[("a.rs", "#[ignore = \"slow\"]\nfn a() {}")])).len(), 1);
    assert_eq!(ignored_test(&tree::sample(&[("a.rs", "// #[ignore]\nfn a() {}")])), []);
}

#[test]
fn an_unwrap_that_ships_must_be_found() {
    assert_eq!(unwrap(&tree::sample(&[("src/a.rs", "fn f() { x.unwrap(); y.expect(\"z\") }")])).len(), 2);
    let fine = "fn f() { x.unwrap_or(1); \".unwrap()\" }\n#[cfg(test)]\nmod tests { fn g() { x.unwrap() } }";
    assert_eq!(unwrap(&tree::sample(&[("src/a.rs", fine), ("tests/src/b.rs", "fn f() { x.unwrap() }")])), []);
    assert!(lexer::blank("\".unwrap()\"").trim().is_empty());
}

#[test]
fn work_put_off_must_be_found() {
    for text in ["fn f() { todo!() }", "// TODO: later", "/// not implemented", "unimplemented!(\"x\")"] {
        assert!(!unfinished(&tree::sample(&[("src/a.rs", text)])).is_empty(), "{text}");
    }
    assert_eq!(unfinished(&tree::sample(&[("src/a.rs", "// what is to do: see the page")])), []);
}

#[test]
fn an_allow_without_reason_must_be_found() {
    assert_eq!(allow(&tree::sample(&[("a.rs", "fn g() {}\n\n#[allow(dead_code)]\nfn f() {}")])).len(), 1);
    for text in
        ["#[allow(x, reason = \"y\")]\n", "// Because y.\n#[allow(x)]\n", "#[allow(x)] // because y\n"]
    {
        assert_eq!(allow(&tree::sample(&[("a.rs", text)])), [], "{text}");
    }
}

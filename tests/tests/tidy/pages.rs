//! Documentation: a page for every code, and links that lead somewhere.

use berth_wire::code::Code;
use regex::Regex;

use crate::tree::Source;
use crate::{Violation, tree};

/// Parts that a page about a code has.
const PARTS: &[&str] = &["\n## Likely causes\n", "\n## What to do\n", "\n## Example\n"];
/// A page is read in a terminal, in a hurry.
const PAGE_LINES_MAX: usize = 60;

/// Every code has its page, every page its code, and a page has all its parts.
pub fn error_page(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for &code in Code::ALL {
        let path = format!("docs/errors/{code}.md");
        let Some(page) = tree.iter().find(|source| source.path == path) else {
            violations.push(Violation { path, what: format!("is missing: {}", code.title()) });
            continue;
        };
        if !page.text.starts_with(&format!("# {code}: {}\n", code.title())) {
            violations.push(Violation::new(page, format!("must begin with \"# {code}: {}\"", code.title())));
        }
        for part in PARTS.iter().filter(|part| !page.text.contains(*part)) {
            violations.push(Violation::new(page, format!("has no part {:?}", part.trim())));
        }
        if page.text.lines().count() > PAGE_LINES_MAX {
            violations.push(Violation::new(page, format!("has more than {PAGE_LINES_MAX} lines")));
        }
    }
    for source in tree {
        let name = source.path.strip_prefix("docs/errors/").and_then(|name| name.strip_suffix(".md"));
        if name.is_some_and(|name| name.parse::<Code>().is_err()) {
            violations.push(Violation::new(source, "is about no code of wire/src/code.rs"));
        }
    }
    violations
}

/// A relative link in a Markdown file leads to a file or folder of the tree.
pub fn link(tree: &[Source]) -> Vec<Violation> {
    let link = Regex::new(r"\]\(([^)#\s]+)(#[^)]*)?\)").unwrap_or_else(|error| panic!("{error}"));
    let mut violations = Vec::new();
    for source in tree.iter().filter(|source| source.path.ends_with(".md")) {
        for found in link.captures_iter(&source.text) {
            let target = &found[1];
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = resolve(&source.path, target);
            let folder = format!("{path}/");
            if !tree.iter().any(|other| other.path == path || other.path.starts_with(&folder)) {
                violations.push(Violation::new(source, format!("links to {target}, which is not there")));
            }
        }
    }
    violations
}

fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn a_missing_or_bad_page_must_be_found() {
    assert_eq!(error_page(&[]).len(), Code::ALL.len());
    let all: Vec<Source> = Code::ALL
        .iter()
        .map(|code| {
            let text = format!("# {code}: {}\n{}", code.title(), PARTS.concat());
            Source::new(&format!("docs/errors/{code}.md"), text.as_bytes())
        })
        .collect();
    assert_eq!(error_page(&all), []);
    for (path, text) in [("docs/errors/Z99.md", ""), ("docs/errors/R10.md", "# R10: Something else\n")] {
        let mut tree: Vec<Source> = all.iter().filter(|source| source.path != path).cloned().collect();
        tree.push(Source::new(path, text.as_bytes()));
        assert!(error_page(&tree).iter().all(|violation| violation.path == path));
        assert!(!error_page(&tree).is_empty(), "{path}");
    }
}

#[test]
fn a_link_that_leads_nowhere_must_be_found() {
    let text = "[a](b.md) [c](../src) [d](https://x/y) [e](#part) [f](gone.md)";
    let tree = tree::sample(&[("docs/a.md", text), ("docs/b.md", ""), ("src/main.rs", "")]);
    let found = link(&tree);
    assert_eq!(found.len(), 1);
    assert!(found[0].what.contains("gone.md"));
}

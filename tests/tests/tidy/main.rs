//! Holds the tree to its own rules: sizes, headers, names, layers, honesty. One concern of rules is one file; a rule looks
//! at all files and answers what breaks it. Each rule has a test that shows it a bad sample: a rule that cannot fail holds
//! nothing. What the compiler and clippy can check does not belong here.
//!
//! What must break a rule is in [`exceptions`], with its reason. An exception that is no longer needed fails the test, so
//! that the list can only shrink.

// A test's own code ends the test by panicking; that is how it says what it saw.
#![allow(clippy::panic, reason = "a test says what it saw by panicking")]

mod exceptions;
mod foreign;
mod header;
mod honesty;
mod layers;
mod lexer;
mod migrations;
mod naming;
mod pages;
mod shell;
mod size;
mod tree;

use std::fmt;

use exceptions::{EXCEPTIONS, Exception};
use tree::{Source, tree};

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The file.
    pub path: String,
    /// What is wrong there.
    pub what: String,
}

impl Violation {
    fn new(source: &Source, what: impl Into<String>) -> Self {
        Self { path: source.path.clone(), what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// A rule: all files in, what breaks it out.
type Rule = fn(&[Source]) -> Vec<Violation>;

/// Every rule by the name that exceptions use.
const RULES: &[(&str, Rule)] = &[
    ("file_lines", size::file_lines),
    ("function_lines", size::function_lines),
    ("header", header::header),
    ("name", naming::name),
    ("pure", layers::pure),
    ("sql", layers::sql),
    ("kernel", layers::kernel),
    ("crates", layers::crates),
    ("shell", shell::shell),
    ("ignored_test", honesty::ignored_test),
    ("unwrap", honesty::unwrap),
    ("unfinished", honesty::unfinished),
    ("allow", honesty::allow),
    ("error_page", pages::error_page),
    ("link", pages::link),
    ("third_party", foreign::third_party),
    ("registry_host", foreign::registry_host),
    ("machine_path", foreign::machine_path),
    ("migration", migrations::migration),
];

/// What is left of the violations after the exceptions, and the exceptions that nothing needed.
fn weigh(rule: &str, exceptions: &[Exception], violations: Vec<Violation>) -> Vec<String> {
    let mine = || exceptions.iter().filter(|exception| exception.rule == rule);
    let mut complaints: Vec<String> = violations
        .iter()
        .filter(|violation| !mine().any(|exception| exception.path == violation.path))
        .map(Violation::to_string)
        .collect();
    for exception in mine() {
        if !violations.iter().any(|violation| violation.path == exception.path) {
            complaints.push(format!(
                "{}: its exception from {rule} is not needed any more; remove it",
                exception.path
            ));
        }
    }
    complaints
}

#[test]
fn the_tree_must_keep_its_rules() {
    let tree = tree();
    assert!(tree.len() > 50, "the tree was not found");
    let mut report = String::new();
    for (name, rule) in RULES {
        for complaint in weigh(name, EXCEPTIONS, rule(&tree)) {
            report.push_str(&format!("[{name}] {complaint}\n"));
        }
    }
    assert!(report.is_empty(), "the tree breaks its rules:\n{report}");
}

#[test]
fn every_exception_must_name_a_rule_a_file_and_a_reason() {
    for exception in EXCEPTIONS {
        assert!(RULES.iter().any(|(name, _)| *name == exception.rule), "no rule {}", exception.rule);
        assert!(exception.reason.len() > 20, "{}: {:?} is no reason", exception.path, exception.reason);
    }
}

#[test]
fn an_exception_that_is_not_needed_must_be_complained_about() {
    let exceptions =
        [Exception { rule: "header", path: "a.rs", reason: "it is a sample, and needs no header" }];
    let violation = |path: &str| Violation { path: path.into(), what: "bad".into() };
    let both = vec![violation("a.rs"), violation("b.rs")];
    assert_eq!(weigh("header", &exceptions, both), ["b.rs: bad"]);
    assert_eq!(weigh("name", &exceptions, vec![violation("a.rs")]), ["a.rs: bad"]);
    let complaints = weigh("header", &exceptions, vec![]);
    assert!(complaints.len() == 1 && complaints[0].contains("not needed"), "{complaints:?}");
}

//! Invariant 4: no shell on a host is given a string. (Inside a container the app's own `/bin/sh -c` runs its command; that
//! is an argv like any other to us.)

use regex::Regex;

use crate::tree::Source;
use crate::{Violation, tree};

/// No `Command::new("sh")` in Rust, no `shell=True`, `os.system` or `os.popen` in Python, no `eval` in shell scripts.
pub fn shell(tree: &[Source]) -> Vec<Violation> {
    let rules = [
        (".rs", r#"Command::new\(\s*"(/(usr/)?bin/)?(env|sh|bash|dash|zsh)""#),
        (".py", r"shell\s*=\s*True|\bos\.(system|popen)\("),
        (".sh", r"(?m)^\s*eval\s|\b(ba|da)?sh -c \x22[^\x22]*\$"),
    ]
    .map(|(end, pattern)| (end, Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"))));
    let mut violations = Vec::new();
    for source in tree {
        for (_, pattern) in rules.iter().filter(|(end, _)| source.path.ends_with(end)) {
            for found in pattern.find_iter(&source.text) {
                // In Rust a test may: it runs on no host.
                if source.is_rust()
                    && !source.shipped.get(found.start()..).is_some_and(|rest| rest.starts_with("Command"))
                {
                    continue;
                }
                let line = source.line_of(found.start());
                let what = format!("line {line}: {} gives a shell a string; use an argv", found.as_str());
                violations.push(Violation::new(source, what));
            }
        }
    }
    violations
}

#[test]
fn a_string_for_a_shell_must_be_found() {
    for (path, text) in [
        ("a.rs", "Command::new(\"sh\").arg(\"-c\")"),
        ("a.rs", "Command::new( \"/bin/bash\")"),
        ("a.py", "subprocess.run(x, shell=True)"),
        ("a.py", "os.system('ls ' + name)"),
        ("a.sh", "eval $command"),
        ("a.sh", "bash -c \"rm $name\""),
    ] {
        assert_eq!(shell(&tree::sample(&[(path, text)])).len(), 1, "{text}");
    }
    let fine = "Command::new(\"git\"); [\"/bin/sh\", \"-c\"]; // Command::new(\"sh\")\n#[test]\nfn t() { Command::new(\"sh\") }";
    assert_eq!(
        shell(&tree::sample(&[("a.rs", fine), ("tests/src/a.rs", "fn f() { Command::new(\"bash\") }")])),
        []
    );
}

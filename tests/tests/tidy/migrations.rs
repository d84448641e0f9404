//! Migrations are numbered without gaps, so that two people cannot add the same one unnoticed.

use crate::tree::Source;
use crate::{Violation, tree};

/// `NNNN_name.sql`, from 0001, each number once, none left out.
pub fn migration(tree: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut wanted = 1;
    let mut found: Vec<&Source> =
        tree.iter().filter(|source| source.path.starts_with("migrations/")).collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    for source in found.into_iter().filter(|source| !source.path.ends_with("README.md")) {
        let name = &source.path["migrations/".len()..];
        let number = name
            .split_once('_')
            .filter(|(number, rest)| number.len() == 4 && rest.ends_with(".sql") && !rest.contains('/'))
            .and_then(|(number, _)| number.parse::<u32>().ok());
        match number {
            Some(number) if number == wanted => {}
            Some(number) => {
                violations.push(Violation::new(source, format!("has number {number}, expected {wanted}")));
            }
            None => {
                violations.push(Violation::new(source, "is not called NNNN_name.sql"));
                continue;
            }
        }
        wanted = number.map_or(wanted, |number| number + 1);
    }
    violations
}

#[test]
fn a_gap_or_a_bad_name_must_be_found() {
    let check = |names: &[&str]| {
        let files: Vec<(&str, &str)> = names.iter().map(|name| (*name, "")).collect();
        migration(&tree::sample(&files)).len()
    };
    assert_eq!(check(&["migrations/0001_a.sql", "migrations/0002_b.sql", "migrations/README.md"]), 0);
    assert_eq!(check(&["migrations/0001_a.sql", "migrations/0003_b.sql"]), 1);
    assert_eq!(check(&["migrations/0001_a.sql", "migrations/0001_b.sql"]), 1);
    assert_eq!(check(&["migrations/1_a.sql"]), 1);
    assert_eq!(check(&["migrations/0001_a.txt"]), 1);
}

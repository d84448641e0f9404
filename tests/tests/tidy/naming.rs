//! Names that say nothing: whatever is in such a file belongs somewhere else.

use crate::tree::Source;
use crate::{Violation, tree};

const FORBIDDEN: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "misc", "manager", "managers", "stuff"];

/// No file or folder is called `utils` or the like, also not as a part (`string_utils`).
pub fn name(tree: &[Source]) -> Vec<Violation> {
    let forbidden = |source: &Source| {
        let mut words = source.path.split(['/', '.', '_', '-']);
        words.find(|word| FORBIDDEN.contains(&word.to_ascii_lowercase().as_str())).map(str::to_owned)
    };
    tree.iter()
        .filter_map(|source| {
            let word = forbidden(source)?;
            Some(Violation::new(source, format!("{word:?} says nothing; name it for what is in it")))
        })
        .collect()
}

#[test]
fn a_name_that_says_nothing_must_be_found() {
    let bad = [
        "src/utils/a.rs",
        "src/common.rs",
        "src/string_utils.rs",
        "test-helpers/x.sh",
        "Manager.svelte",
        "misc/a",
    ];
    for path in bad {
        assert_eq!(name(&tree::sample(&[(path, "")])).len(), 1, "{path}");
    }
    assert_eq!(name(&tree::sample(&[("src/utility_company.rs", ""), ("src/commonality.rs", "")])), []);
}

//! The first five minutes as the page tells them: every command of `docs/tutorial.md` is typed, and what comes back compared. Its
//! reader is alone: at the end no app is left.
//! How a page is replayed does not belong here but in `berth_tests::transcript`.

use std::collections::BTreeMap;
use std::fs;

use berth_tests::installation::{Installation, root};
use berth_tests::transcript::replay;

use crate::Scenario;

pub const ALL: &[Scenario] = &[("the_tutorial_must_go_as_it_is_written", tutorial)];

fn tutorial(berth: &Installation) {
    let page = fs::read_to_string(root().join("docs/tutorial.md")).unwrap_or_else(|e| panic!("{e}"));
    let data = berth.data.display().to_string();
    let page = page.replace("http://127.0.0.1:7070", &berth.url).replace("/var/lib/berth-demo", &data);
    let home = berth.data.join("home");
    fs::create_dir_all(&home).unwrap_or_else(|e| panic!("{}: {e}", home.display()));
    let path = format!("{data}/bin:{}", std::env::var("PATH").unwrap_or_default());
    let (name, address) = ("A reader", "reader@localhost");
    let env = [
        ("HOME", home.display().to_string()),
        ("PATH", path),
        ("LANG", "C.UTF-8".to_owned()),
        ("GIT_AUTHOR_NAME", name.to_owned()),
        ("GIT_AUTHOR_EMAIL", address.to_owned()),
        ("GIT_COMMITTER_NAME", name.to_owned()),
        ("GIT_COMMITTER_EMAIL", address.to_owned()),
        ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
    ];
    let env: BTreeMap<String, String> = env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    replay(&page, &env, &home).unwrap_or_else(|error| panic!("docs/tutorial.md: {error}"));
}

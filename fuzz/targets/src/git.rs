//! What a push brings beside git's own protocol, which git itself reads: refs, hooks' messages, the listing of a tree; and names.

use berth_control_plane::git::protocol::{Examined, Hello, Order, TreeLimits, Update};
use berth_control_plane::git::rules::{DEPLOY_BRANCHES, judge};
use berth_wire::name::{AppName, ConfigKey, Domain, ProcessType};

use crate::{Target, target, texts};

pub const TARGETS: &[Target] = &[
    target("refs", refs, updates),
    target("hook", hook, messages),
    target("tree", tree, trees),
    target("names", names, some_names),
];

/// `OLD NEW REF` a line.
fn refs(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let update = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        Some(Update { old: words.next()?, new: words.next()?, reference: words.next()? })
    };
    let updates: Vec<Update> = text.lines().filter_map(update).collect();
    match judge(&updates) {
        Ok(accepted) => {
            assert!(DEPLOY_BRANCHES.contains(&accepted.branch.as_str()), "{accepted:?}");
            assert!(!accepted.new.bytes().all(|byte| byte == b'0'));
            assert_eq!(updates.len(), 1);
        }
        Err(refused) => assert!(!refused.sentence.is_empty()),
    }
}

fn hook(input: &[u8]) {
    let _ = serde_json::from_slice::<Hello>(input);
    if let Ok(order) = serde_json::from_slice::<Order>(input) {
        let again = serde_json::to_vec(&order).unwrap();
        assert_eq!(serde_json::from_slice::<Order>(&again).unwrap(), order);
    }
}

fn tree(input: &[u8]) {
    let mut examined = Examined::default();
    let entries = input.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let mut counted = 0;
    for entry in entries {
        examined.count(entry);
        counted += 1;
    }
    assert_eq!(examined.files + examined.submodules, counted);
    let limits = TreeLimits { files_max: 10, bytes_max: 1_000 };
    assert!(!(examined.is_sendable(limits) && examined.is_too_large(limits)));
}

fn names(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(name) = text.parse::<AppName>() {
        // It becomes a DNS label, a directory and part of a URL.
        assert!(
            name.as_str().len() <= 63
                && name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        );
        assert_eq!(name.as_str(), text);
    }
    if let Ok(process) = text.parse::<ProcessType>() {
        assert!(
            !process.as_str().is_empty() && !process.as_str().contains(['/', '.', '\0', ' ']),
            "{text:?}"
        );
    }
    if let Ok(key) = text.parse::<ConfigKey>() {
        assert!(!key.as_str().is_empty() && !key.as_str().contains(['=', '\0', '\n']), "{text:?}");
    }
    if let Ok(domain) = text.parse::<Domain>() {
        assert!(domain.as_str().len() <= 253 && !domain.as_str().contains(['/', ':', '\0']), "{text:?}");
    }
}

fn updates() -> Vec<Vec<u8>> {
    let (none, some) = ("0".repeat(40), "8b137891791fe96927ad78e64b0aad7bded08bdc");
    texts(&[
        &format!("{none} {some} refs/heads/main"),
        &format!("{some} {none} refs/heads/main"),
        &format!("{none} {some} refs/heads/feature\n{none} {some} refs/tags/v1"),
        &format!("{none} {some} refs/heads/refs/heads/main"),
    ])
}

fn messages() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"push": "00000000-0000-0000-0000-000000000001", "secret": "s", "stage": "pre-receive", "updates": [{"old": "0", "new": "1", "reference": "refs/heads/main"}]}"#,
        r#"{"say": "hello"}"#,
        r#"{"archive": {"commit": "abc", "limits": {"files_max": 1, "bytes_max": 2}}}"#,
        r#"{"exit": 1}"#,
    ])
}

fn trees() -> Vec<Vec<u8>> {
    texts(&[
        "100644 blob 8b137891791fe96927ad78e64b0aad7bded08bdc      12\ta b\x00120000 blob 8b13       3\tlink\x00160000 commit 8b13       -\tsub\0",
        "100644 blob 8b13 18446744073709551615\tx\x00100644 blob 8b13 18446744073709551615\ty\0",
    ])
}

fn some_names() -> Vec<Vec<u8>> {
    texts(&["shop", "web", "worker_2", "DATABASE_URL", "shop.example.com", "a--b", "xn--bcher-kva.example"])
}

//! What the ledger accepts, what it keeps, and that the generation in force never goes back.

use std::os::unix::fs::PermissionsExt;

use berth_wire::name::AppName;
use berth_wire::spec::Route;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const HOST: HostId = HostId(Uuid::from_u128(1));

fn spec(epoch: u64, number: u64, routes: usize) -> Spec {
    let route = |n: usize| Route {
        domain: format!("a{n}.localhost").parse().unwrap(),
        app: berth_wire::id::AppId(Uuid::from_u128(n as u128)),
        app_name: "shop".parse::<AppName>().unwrap(),
        instances: vec![],
    };
    Spec {
        host: HOST,
        generation: Generation { epoch, number },
        instances: vec![],
        routes: (0..routes).map(route).collect(),
    }
}

#[test]
fn an_accepted_spec_must_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), HOST).unwrap();
    assert_eq!(ledger.accept(spec(1, 1, 1)).unwrap(), Accepted::New);
    assert_eq!(ledger.accept(spec(1, 1, 1)).unwrap(), Accepted::Repeated);
    drop(ledger);
    let again = Ledger::open(dir.path(), HOST).unwrap();
    assert_eq!(again.current().as_deref(), Some(&spec(1, 1, 1)));
}

#[test]
fn an_older_spec_must_be_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), HOST).unwrap();
    ledger.accept(spec(1, 5, 0)).unwrap();
    assert!(matches!(ledger.accept(spec(1, 4, 0)), Err(LedgerError::Older { .. })));
    assert!(matches!(ledger.accept(spec(0, 9, 0)), Err(LedgerError::Older { .. })));
}

#[test]
fn the_same_generation_with_other_content_must_be_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), HOST).unwrap();
    ledger.accept(spec(1, 5, 0)).unwrap();
    assert!(matches!(ledger.accept(spec(1, 5, 1)), Err(LedgerError::SameGenerationOtherContent { .. })));
    assert_eq!(ledger.current().as_deref(), Some(&spec(1, 5, 0)));
}

#[test]
fn a_new_epoch_must_be_accepted_although_its_numbers_start_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), HOST).unwrap();
    ledger.accept(spec(1, 500, 0)).unwrap();
    assert_eq!(ledger.accept(spec(2, 1, 0)).unwrap(), Accepted::New);
}

#[test]
fn another_hosts_spec_must_be_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), HOST).unwrap();
    let foreign = Spec { host: HostId(Uuid::from_u128(2)), ..spec(9, 9, 0) };
    assert!(matches!(ledger.accept(foreign), Err(LedgerError::OtherHost { .. })));
}

#[test]
fn the_file_must_be_private_and_must_not_show_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), HOST).unwrap();
    ledger.accept(spec(1, 1, 3)).unwrap();
    for name in ["spec", "key"] {
        let mode = std::fs::metadata(dir.path().join("ledger").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let bytes = std::fs::read(dir.path().join("ledger/spec")).unwrap();
    assert!(!bytes.windows(4).any(|w| w == b"shop"));
}

#[test]
fn a_damaged_spec_must_be_set_aside_and_the_next_one_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), HOST).unwrap();
    ledger.accept(spec(1, 7, 0)).unwrap();
    let path = dir.path().join("ledger/spec");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let again = Ledger::open(dir.path(), HOST).unwrap();
    assert_eq!(again.current(), None);
    assert!(dir.path().join("ledger/spec.unreadable").exists());
    assert_eq!(again.accept(spec(1, 7, 0)).unwrap(), Accepted::New);
}

proptest! {
    #[test]
    fn the_generation_in_force_must_never_go_back(
        offers in prop::collection::vec((0u64..3, 0u64..5, 0usize..2), 1..40)
    ) {
        let mut current: Option<Spec> = None;
        for (epoch, number, routes) in offers {
            let offered = spec(epoch, number, routes);
            let before = current.clone();
            match judge(HOST, current.as_ref(), &offered) {
                Ok(Accepted::New) => {
                    prop_assert!(before.is_none_or(|b| b.generation < offered.generation));
                    current = Some(offered);
                }
                Ok(Accepted::Repeated) => prop_assert_eq!(before, Some(offered)),
                Err(_) => prop_assert!(before.is_some_and(|b| b.generation >= offered.generation && b != offered)),
            }
        }
    }
}

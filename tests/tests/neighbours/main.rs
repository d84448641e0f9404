//! Noisy neighbours: one installation, a victim under steady load, and beside it, one after another, neighbours that take all they can
//! get of one thing. For each: the victim fails no request and can use its own quota meanwhile, the platform's processes are the
//! same before and after, and an event names the culprit. What each neighbour does is in `tests/apps/neighbour/attack.py`.

#![allow(clippy::panic, reason = "a scenario says what it saw by panicking")]

mod attack;
mod scenarios;
mod victim;

use std::process::ExitCode;
use std::sync::Arc;

use berth_tests::installation::{Installation, is_root_or_says_so};
use berth_tests::repository::Repository;
use libtest_mimic::{Arguments, Trial};

/// The app whose one-offs are the noisy neighbours.
const NEIGHBOUR: &str = "noisy";
/// The app beside them.
const VICTIM: &str = "victim";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list || !is_root_or_says_so("noisy neighbours") {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        return ExitCode::SUCCESS;
    }
    let berth = match Installation::bring_up("noisy") {
        Ok(berth) => Arc::new(berth),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    // Pushed like any app, before anything is noisy.
    Repository::of_app(&berth, VICTIM, "tests/apps/probe").push_ok();
    Repository::of_app(&berth, NEIGHBOUR, "tests/apps/neighbour").push_ok();
    // One neighbour at a time: each has to be bearable by itself.
    arguments.test_threads = Some(1);
    let trial = |&(name, run): &scenarios::Scenario| {
        let berth = Arc::clone(&berth);
        Trial::test(name, move || {
            run(&berth);
            Ok(())
        })
    };
    let trials = scenarios::ALL.iter().map(trial).collect();
    let concluded = libtest_mimic::run(&arguments, trials);
    let clean =
        Arc::try_unwrap(berth).map_err(|_| "a scenario still runs".to_owned()).and_then(Installation::finish);
    if let Err(left) = &clean {
        eprintln!("{left}");
    }
    if concluded.has_failed() || clean.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

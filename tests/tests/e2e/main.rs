//! End to end: one installation, real git, real registries, real containers; each scenario has apps of its own, so they run
//! side by side, after the tutorial, whose reader has the installation to himself. The scenarios that kill daemons come last and alone. Ends with the count of what is left behind.

#![allow(clippy::panic, reason = "a scenario says what it saw by panicking")]

mod bad_input;
mod build;
mod deaths;
mod exec;
mod full;
mod lifecycle;
mod observe;
mod quota;
mod release;
mod tutorial;

use std::process::ExitCode;
use std::sync::Arc;

use berth_tests::installation::{Installation, is_root_or_says_so};
use libtest_mimic::{Arguments, Conclusion, Trial};

/// A scenario: its name as a sentence, and what it does with the installation.
pub type Scenario = (&'static str, fn(&Installation));

fn trials(berth: &Arc<Installation>, scenarios: &[Scenario]) -> Vec<Trial> {
    let trial = |&(name, run): &Scenario| {
        let berth = Arc::clone(berth);
        Trial::test(name, move || {
            run(&berth);
            Ok(())
        })
    };
    scenarios.iter().map(trial).collect()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list || !is_root_or_says_so("end-to-end tests") {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        return ExitCode::SUCCESS;
    }
    let berth = match Installation::bring_up("e2e") {
        Ok(berth) => Arc::new(berth),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    arguments.test_threads.get_or_insert(3);
    let alone = libtest_mimic::run(&arguments, trials(&berth, tutorial::ALL));
    let side_by_side =
        [build::ALL, release::ALL, lifecycle::ALL, quota::ALL, exec::ALL, observe::ALL, bad_input::ALL]
            .concat();
    let first = libtest_mimic::run(&arguments, trials(&berth, &side_by_side));
    arguments.test_threads = Some(1);
    let then = libtest_mimic::run(&arguments, trials(&berth, &[full::ALONE, deaths::ALL].concat()));
    let clean =
        Arc::try_unwrap(berth).map_err(|_| "a scenario still runs".to_owned()).and_then(Installation::finish);
    if let Err(left) = &clean {
        eprintln!("{left}");
    }
    let good = |c: &Conclusion| !c.has_failed();
    if good(&alone) && good(&first) && good(&then) && clean.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

//! Crash safety over a whole installation: faults at every step of launch, teardown and adoption, from outside (strace), so that no
//! program has a switch for them; the launcher dead and replaced; random kills. How much of it is done is said by the environment,
//! which `tests/faults/run.sh` sets: BERTH_FAULT_POINTS (a number, or `all`), BERTH_FAULT_ONLY (points whose line contains it),
//! BERTH_FAULT_KILLS, BERTH_FAULT_SEED.

#![allow(clippy::panic, reason = "a scenario says what it saw by panicking")]

mod chance;
mod random;
mod stage;
mod table;
mod upgrade;
mod walk;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use berth_tests::installation::is_root_or_says_so;
use libtest_mimic::{Arguments, Failed, Trial};
use stage::Stage;

/// Points of a run that was not told how many: two minutes' worth.
const POINTS_DEFAULT: usize = 24;
/// Kills of a run that was not told how many.
const KILLS_DEFAULT: usize = 20;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    std::env::var("BERTH_FAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_124)
}

fn walk_points(stage: &mut Stage) -> Result<(), String> {
    let all = std::env::var("BERTH_FAULT_POINTS").is_ok_and(|text| text == "all");
    let most = (!all).then(|| number("BERTH_FAULT_POINTS", POINTS_DEFAULT));
    let only = std::env::var("BERTH_FAULT_ONLY").unwrap_or_default();
    if most == Some(0) {
        return Ok(());
    }
    let walked = walk::walk(stage, most, seed(), &only)?;
    let (requests, failed) = stage.requests();
    println!(
        "points hit {}, faults {}, points not reached {}, wrong {}, releases that failed and said so {}, requests {requests}, failed {failed}",
        walked.hit,
        walked.faults,
        walked.missed,
        walked.wrong.len(),
        stage.failed_releases.len(),
    );
    if walked.wrong.is_empty() { Ok(()) } else { Err(walked.wrong.join("\n")) }
}

fn kill_randomly(stage: &mut Stage) -> Result<(), String> {
    let count = number("BERTH_FAULT_KILLS", KILLS_DEFAULT);
    if count == 0 {
        return Ok(());
    }
    let counts = random::kills(stage, count, seed())?;
    println!("{counts:#?}");
    if counts.is_good() { Ok(()) } else { Err("something was lost, see the counts".to_owned()) }
}

type Scenario = (&'static str, fn(&mut Stage) -> Result<(), String>);

/// In this order: what comes last does the most to the installation.
const SCENARIOS: &[Scenario] = &[
    ("a_launcher_replaced_under_load_must_lose_nothing", upgrade::under_load),
    ("a_fault_at_any_step_must_lose_and_leave_nothing", walk_points),
    ("random_kills_must_lose_and_leave_nothing", kill_randomly),
    ("an_end_while_the_launcher_is_dead_must_be_told_right", upgrade::ends_while_dead),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list || !is_root_or_says_so("fault tests") {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        return ExitCode::SUCCESS;
    }
    arguments.test_threads = Some(1);
    let stage = match Stage::open() {
        Ok(stage) => Arc::new(Mutex::new(stage)),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let trial = |&(name, run): &Scenario| {
        let stage = Arc::clone(&stage);
        Trial::test(name, move || {
            run(&mut stage.lock().unwrap_or_else(PoisonError::into_inner)).map_err(Failed::from)
        })
    };
    let conclusion = libtest_mimic::run(&arguments, SCENARIOS.iter().map(trial).collect());
    let stage =
        Arc::into_inner(stage).map(|stage| stage.into_inner().unwrap_or_else(PoisonError::into_inner));
    let clean = stage.ok_or_else(|| "a scenario still runs".to_owned()).and_then(Stage::close);
    if let Err(left) = &clean {
        eprintln!("{left}");
    }
    if conclusion.has_failed() || clean.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

//! The runner that needs no instrumented build: seeds, then damaged seeds, on any compiler. It finds less an hour than libFuzzer, and
//! runs where tests run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::Target;
use crate::mutate::{Random, mutate};

/// An input that broke a promise.
#[derive(Debug)]
pub struct Finding {
    /// The smallest that was found to do so.
    pub input: Vec<u8>,
    /// What the panic said.
    pub said: String,
}

/// Longer than this for one input is a finding, too: no parser may take a second for 64 KiB. Generous, since machines pause.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);

/// Runs seeds and then so many damaged ones, for at most so long; the first finding ends it. Panics are not printed: what they said is
/// in the finding.
///
/// # Errors
/// What was found.
pub fn run(target: &Target, iterations: u64, seed: u64, time_max: Duration) -> Result<(), Finding> {
    std::panic::set_hook(Box::new(|_| {}));
    let begin = Instant::now();
    let seeds = (target.seeds)();
    for input in &seeds {
        judge(target, input)?;
    }
    let mut random = Random::new(seed);
    for _ in 0..iterations {
        if begin.elapsed() > time_max {
            break;
        }
        judge(target, &mutate(&seeds, &mut random))?;
    }
    Ok(())
}

fn judge(target: &Target, input: &[u8]) -> Result<(), Finding> {
    match attempt(target, input) {
        Ok(()) => Ok(()),
        Err(said) => Err(Finding { input: shrink(target, input.to_vec()), said }),
    }
}

fn attempt(target: &Target, input: &[u8]) -> Result<(), String> {
    let begin = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.feed)(input)));
    let took = begin.elapsed();
    match outcome {
        Ok(()) if took <= INPUT_TIME_MAX => Ok(()),
        Ok(()) => Err(format!("it took {took:?}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
        }
    }
}

/// Takes out parts, large ones first, as long as it still fails.
fn shrink(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let mut part = input.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at + part <= input.len() {
            let smaller = [&input[..at], &input[at + part..]].concat();
            if attempt(target, &smaller).is_err() { input = smaller } else { at += part }
        }
        part /= 2;
    }
    input
}

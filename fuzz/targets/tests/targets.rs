//! Every target for at most half a second: seeds and some thousand damaged ones, the same each time. `BERTH_FUZZ_SEED` chooses others;
//! `cargo run -p berth-fuzz-targets --bin berth-fuzz -- --iterations N` runs longer.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use berth_fuzz_targets::{Target, all, run};
use libtest_mimic::{Arguments, Trial};

const SHORT_RUN_US: u64 = 500_000;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let seed = std::env::var("BERTH_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let trial = |target: Target| {
        Trial::test(format!("{} must keep its promises", target.name), move || {
            run(&target, SHORT_RUN_US / target.cost_us, seed, Duration::from_micros(SHORT_RUN_US)).map_err(
                |finding| format!("{}\n{:?}", finding.said, String::from_utf8_lossy(&finding.input)).into(),
            )
        })
    };
    let mut trials: Vec<Trial> = all().into_iter().map(trial).collect();
    trials.push(Trial::test("every target must have its libFuzzer program", || Ok(programs()?)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// `fuzz/` is a workspace of its own, which nothing here builds.
fn programs() -> Result<(), String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| fs::read_to_string(dir.join(path)).map_err(|error| format!("{path}: {error}"));
    let manifest = read("Cargo.toml")?;
    for name in all().into_iter().map(|target| target.name) {
        let program = read(&format!("fuzz_targets/{}.rs", name.replace('-', "_")))?;
        if !program.contains(&format!("feed({name:?}, input)"))
            || !manifest.contains(&format!("name = {name:?}"))
        {
            return Err(format!("{name} is not among them"));
        }
    }
    Ok(())
}

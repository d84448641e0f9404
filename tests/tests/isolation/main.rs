//! Isolation, from inside: each protection is attacked twice, once as shipped and once with its step taken out of the plan. The
//! first must fail, the second succeed: a protection whose removal changes nothing protects nothing, and neither does its test.

#![allow(clippy::panic, reason = "a case says what it saw by panicking")]

mod docker;
mod faults;
mod images;
mod peer;
mod permitted;
mod single;
mod stage;
mod table;

use std::process::ExitCode;
use std::sync::Arc;

use berth_tests::installation::is_root_or_says_so;
use libtest_mimic::{Arguments, Failed, Trial};
use stage::Stage;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list || !is_root_or_says_so("isolation tests") {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => panic!("{error}"),
    };
    let stage = match runtime.block_on(Stage::open()) {
        Ok(stage) => Arc::new(stage),
        Err(error) => panic!("{error}"),
    };
    let mut trials = Vec::new();
    let runc = peer::Runc::find(stage.dir.path()).map(Arc::new);
    for (number, case) in table::cases().into_iter().enumerate() {
        if let (Some(runc), false) = (runc.clone(), matches!(case.peer, table::Peer::Not(_))) {
            let case = case.clone();
            let name = format!("runc: {}", case.name);
            trials.push(Trial::test(name, move || runc.check(number, &case).map_err(Failed::from)));
        }
        let (runtime, stage) = (Arc::clone(&runtime), Arc::clone(&stage));
        trials.push(Trial::test(case.name.clone(), move || {
            runtime.block_on(table::check(&stage, &case)).map_err(Failed::from)
        }));
    }
    for (name, run) in single::ALL {
        let (runtime, stage) = (Arc::clone(&runtime), Arc::clone(&stage));
        trials.push(Trial::test(*name, move || runtime.block_on(run(stage)).map_err(Failed::from)));
    }
    for (name, run) in single::PURE {
        trials.push(Trial::test(*name, move || run().map_err(Failed::from)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(runc) = runc {
        runc.close();
    }
    let Some(mut stage) = Arc::into_inner(stage) else { panic!("a test still holds the stage") };
    let survived = runtime.block_on(faults::launcher_killed(&mut stage));
    println!("a container must outlive its launcher and lose no line ... {survived:?}");
    if let Err(error) = runtime.block_on(stage.close()) {
        panic!("{error}");
    }
    if conclusion.has_failed() || survived.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

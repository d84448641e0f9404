//! The compatibility corpus: what people run must run under the isolation as shipped, and do something real there. Each program is a
//! container of its own with an app's capabilities (none), filter, mounts and quota; `apt` is a build step. What each does is in
//! `tests/corpus/programs`, and asserts by itself; here is where it runs and what it must say.

#![allow(clippy::panic, reason = "a case says what it saw by panicking")]

mod images;
mod programs;
mod stage;

use std::process::ExitCode;
use std::sync::Arc;

use berth_tests::installation::is_root_or_says_so;
use libtest_mimic::{Arguments, Failed, Trial};
use stage::Stage;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list || !is_root_or_says_so("the compatibility corpus") {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        return ExitCode::SUCCESS;
    }
    // One at a time: a JVM beside a PostgreSQL on a small machine makes neither of them a better test.
    arguments.test_threads = Some(1);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => panic!("{error}"),
    };
    let opened = images::find().and_then(|image| {
        let stage = runtime.block_on(Stage::open(&image.tar))?;
        Ok((image, Arc::new(stage)))
    });
    let (image, stage) = match opened {
        Ok(opened) => opened,
        Err(error) => panic!("{error}"),
    };
    let (programs, left_out): (Vec<_>, Vec<_>) =
        programs::ALL.iter().partition(|program| image.is_whole || program.is_in_the_stack);
    if !left_out.is_empty() {
        let names: Vec<&str> = left_out.iter().map(|program| program.name).collect();
        println!("not run: {} ({})", names.join(", "), image.why_not_whole);
    }
    let trial = |program: &'static programs::Program| {
        let (runtime, stage) = (Arc::clone(&runtime), Arc::clone(&stage));
        let name = format!("{} must work as shipped", program.name);
        Trial::test(name, move || runtime.block_on(programs::check(&stage, program)).map_err(Failed::from))
    };
    let conclusion = libtest_mimic::run(&arguments, programs.into_iter().map(trial).collect());
    let Some(stage) = Arc::into_inner(stage) else { panic!("a test still holds the stage") };
    if let Err(error) = runtime.block_on(stage.close()) {
        panic!("{error}");
    }
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

//! What fuzzing runs: one function for each parser of bytes that an image, a container or a socket brings. A target takes any bytes and
//! panics if the parser breaks a promise: more than not to crash, where there is more to promise (a round trip, a bound, that
//! doing it twice changes nothing). libFuzzer (`fuzz/`) and the runner for any compiler (`berth-fuzz`, and a test) share them.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a broken promise is a panic here"
)]

mod archive;
mod build;
mod git;
mod http_heads;
mod image;
mod launcher;
mod messages;
mod mutate;
mod runner;
mod streams;

pub use runner::{Finding, run};

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: that of the libFuzzer program, too.
    pub name: &'static str,
    /// Feeds it.
    pub feed: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// One input in so many microseconds, roughly: how many fit into a short run.
    pub cost_us: u64,
}

/// All of them.
pub fn all() -> Vec<Target> {
    [
        archive::TARGETS,
        image::TARGETS,
        build::TARGETS,
        streams::TARGETS,
        launcher::TARGETS,
        messages::TARGETS,
        http_heads::TARGETS,
        git::TARGETS,
    ]
    .concat()
}

/// Feeds the target of this name, for libFuzzer.
pub fn feed(name: &str, input: &[u8]) {
    let target = all().into_iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("there is no target {name}")).feed)(input);
}

/// A target of text.
const fn target(name: &'static str, feed: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, feed, seeds, cost_us: 20 }
}

fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|text| text.as_bytes().to_vec()).collect()
}

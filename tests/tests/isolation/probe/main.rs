//! Runs inside a container: makes one attempt, named by its first argument, and says by its exit status how it went: 0 it
//! succeeded, N the kernel refused with errno N. Compiled by the suite with plain rustc, static, so that the image needs nothing
//! else; it is no part of any crate. Attempts by kind: `calls`, `facts`, `files`, `loads`, `network`.

mod calls;
mod facts;
mod files;
mod loads;
mod network;

use std::io;

/// How an attempt went.
pub type Outcome = Result<(), i32>;

/// What is not an errno: the attempt was possible and what it found was as it should be.
pub const AS_IT_SHOULD_BE: i32 = 200;
/// The attempt was described in a way that makes no sense.
pub const MALFORMED: i32 = 253;
/// Nobody knows this attempt.
const UNKNOWN: i32 = 254;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let attempt = arguments.get(1).cloned().unwrap_or_default();
    let rest: Vec<&str> = arguments.iter().skip(2).map(String::as_str).collect();
    let kinds = [calls::attempt, facts::attempt, files::attempt, loads::attempt, network::attempt];
    let outcome = kinds.iter().find_map(|kind| kind(&attempt, &rest)).unwrap_or(Err(UNKNOWN));
    std::process::exit(match outcome {
        Ok(()) => 0,
        Err(code) => code,
    });
}

/// A result whose failure is in errno.
pub fn number(result: i64) -> Outcome {
    if result < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(1)) } else { Ok(()) }
}

/// A result of the standard library.
pub fn io_result<T>(result: io::Result<T>) -> Outcome {
    result.map(drop).map_err(|error| error.raw_os_error().unwrap_or(1))
}

/// What an attempt that looks for something says.
pub fn found(attack_found_something: bool) -> Outcome {
    if attack_found_something { Ok(()) } else { Err(AS_IT_SHOULD_BE) }
}

//! What tests of the whole share: a real installation, real repositories, real traffic, and the count of what is left.
//! Assertions belong in `tests/tests/`, one file per concern.

// A test's own code ends the test by panicking; that is how it says what it saw.
#![allow(clippy::panic)]

pub mod census;
pub mod daemons;
pub mod host;
pub mod installation;
pub mod leaks;
pub mod repository;
pub mod strace;
pub mod traffic;
pub mod transcript;

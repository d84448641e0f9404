//! The edge over real sockets on loopback, with tiny instances. One binary, so that it is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; clippy's own exception does not reach what #[test] functions call"
)]

mod drain;
mod hostile;
mod instance;
mod protocol;
mod rig;
mod survive;
mod trouble;

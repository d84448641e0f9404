//! Whether an instance is well: checks from outside, and finding out why one did not come up.
//! What follows from the answer (routing, killing, restarting) is decided in `reconcile`.

pub mod diagnose;
pub mod probe;
pub mod sockets;
pub mod watch;

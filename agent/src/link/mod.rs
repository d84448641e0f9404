//! The agent's side of the control-plane connection: it dials out, asks and tells; nobody dials in. When the control plane
//! does not answer, everything here waits and tries again, and everything else goes on with the last spec.
//!
//! | module | |
//! |---|---|
//! | [`client`] | requests with the host's token; back-off |
//! | [`specs`] | asks for newer specs |
//! | [`reports`] | tells what is |
//! | [`sessions`] | streams logs and metrics to whoever asked |

pub mod client;
pub mod reports;
pub mod sessions;
pub mod specs;

#[cfg(test)]
mod tests;

//! Whole stories over the real router, store and planner; only the host is made up.

mod access;
mod builds;
mod contract;
pub mod fleet;
mod rollout;

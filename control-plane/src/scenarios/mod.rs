//! Whole stories over the real router, store and planner; only the host is made up.

mod builds;
pub mod fleet;
mod rollout;

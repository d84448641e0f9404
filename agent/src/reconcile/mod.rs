//! The reconciler: makes the host match its spec. Observe -> plan (pure) -> steps -> execute -> report.

pub mod memory;
pub mod plan;
pub mod record;
pub mod transition;

#[cfg(test)]
mod tests;

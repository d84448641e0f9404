//! A host: what it last said about itself, and for how long that counts.

use berth_wire::id::HostId;
use berth_wire::report::{EdgeReport, HostFacts, REPORT_SECONDS_MAX};
use jiff::{SignedDuration, Timestamp};

/// A host, as last reported.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRow {
    /// Which.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// When it last reported.
    pub seen_at: Option<Timestamp>,
    /// What it is and has.
    pub facts: HostFacts,
    /// What its edge serves.
    pub edge: EdgeReport,
    /// The number of its last event that is stored.
    pub events_received: u64,
}

/// A host that was silent for this long counts as down: three reports missed.
pub const DOWN_AFTER: SignedDuration = SignedDuration::from_secs(3 * REPORT_SECONDS_MAX.cast_signed());

impl HostRow {
    /// Whether it reported lately.
    pub fn is_up(&self, now: Timestamp) -> bool {
        self.seen_at.is_some_and(|at| now.duration_since(at) < DOWN_AFTER)
    }
}

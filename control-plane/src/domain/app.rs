//! An app as the store keeps it: whose it is, what it is called and where it answers.

use berth_wire::id::{AppId, TeamId};
use berth_wire::name::{AppName, Domain};
use jiff::Timestamp;

/// An app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRow {
    /// Which.
    pub id: AppId,
    /// Whose.
    pub team: TeamId,
    /// Its name.
    pub name: AppName,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was deleted: it is then only waiting for its instances to stop.
    pub deleted_at: Option<Timestamp>,
    /// Every domain routed to it.
    pub domains: Vec<Domain>,
}

//! Who may do what in the registry. A host reads and writes `apps/*` and `layers` and reads `stacks/*`; an API
//! token reads and writes the repositories of its team's apps and `stacks/*`. All else does not exist for them.

use sqlx::SqliteConnection;

use super::path::Repository;
use crate::access::Caller;
use crate::store::{StoreError, apps};

/// What a caller may do to one repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Not even learn that it exists.
    Nothing,
    /// Pull.
    Read,
    /// Pull and push.
    Write,
}

/// What this caller may do to that repository.
///
/// # Errors
/// The store failed.
pub async fn access(
    conn: &mut SqliteConnection,
    caller: &Caller,
    repository: &Repository,
) -> Result<Access, StoreError> {
    Ok(match (caller, repository) {
        (Caller::Host(_), Repository::Stack(_)) => Access::Read,
        (Caller::Host(_), Repository::App(_) | Repository::Layers) => Access::Write,
        (Caller::Api(_), Repository::Stack(_)) => Access::Write,
        (Caller::Api(_), Repository::Layers) => Access::Nothing,
        (Caller::Api(bearer), Repository::App(app)) => match apps::find_by_id(conn, *app).await? {
            Some(app) if app.team == bearer.team && app.deleted_at.is_none() => Access::Write,
            _ => Access::Nothing,
        },
    })
}

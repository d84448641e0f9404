//! How many of what there are, for metrics.

use sqlx::SqliteConnection;

use super::StoreError;

/// Counts by kind.
pub type Counts = Vec<(String, i64)>;

/// How many of what there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Apps: `live`, `deleted` (still stopping).
    pub apps: Counts,
    /// Releases by status.
    pub releases: Counts,
    /// Builds by status.
    pub builds: Counts,
    /// Instances by what should be true of them.
    pub instances: Counts,
}

/// Counts.
///
/// # Errors
/// The store failed.
pub async fn take(conn: &mut SqliteConnection) -> Result<Census, StoreError> {
    let mut census = Census::default();
    for (counts, statement) in [
        (
            &mut census.apps,
            "SELECT iif(deleted_at IS NULL, 'live', 'deleted') AS state, count(*) FROM apps GROUP BY state",
        ),
        (&mut census.releases, "SELECT status, count(*) FROM releases GROUP BY status"),
        (&mut census.builds, "SELECT status, count(*) FROM builds GROUP BY status"),
        (&mut census.instances, "SELECT desired, count(*) FROM instances GROUP BY desired"),
    ] {
        *counts = sqlx::query_as(statement).fetch_all(&mut *conn).await?;
    }
    Ok(census)
}

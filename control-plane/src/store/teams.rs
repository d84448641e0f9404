//! Teams: every object belongs to one, and is only found through it.

use berth_wire::id::TeamId;
use jiff::Timestamp;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::StoreError;

/// The team that exists from the first migration.
pub const DEFAULT: TeamId = TeamId(Uuid::from_u128(0x00000000_0000_7000_8000_000000000001));

/// A team's name.
///
/// # Errors
/// The store failed.
pub async fn name_find(conn: &mut SqliteConnection, team: TeamId) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT name FROM teams WHERE id = ?")
        .bind(team.to_string())
        .fetch_optional(conn)
        .await?)
}

/// Stores a new team.
///
/// # Errors
/// The store failed; a duplicate if the name is taken.
pub async fn insert(
    conn: &mut SqliteConnection,
    team: TeamId,
    name: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO teams (id, name, created_at) VALUES (?, ?, ?)")
        .bind(team.to_string())
        .bind(name)
        .bind(now.as_microsecond())
        .execute(conn)
        .await?;
    Ok(())
}

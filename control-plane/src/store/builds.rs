//! Builds: what was asked to be built, how far it is and what came of it. Sources and logs are files, not rows.

use berth_wire::id::{AppId, BuildId};
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};

use super::{StoreError, from_json, from_word, parse, time, to_json, to_word};
pub use crate::domain::build::BuildRow;

#[derive(FromRow)]
struct Row {
    id: String,
    app_id: String,
    created_at: i64,
    ended_at: Option<i64>,
    commit_id: Option<String>,
    source: String,
    stack_json: String,
    asked_by: String,
    releases: bool,
    status: String,
    attempts: u32,
    image_json: Option<String>,
    manifest_json: Option<String>,
    trouble_json: Option<String>,
    release: Option<i64>,
}

impl Row {
    fn into_build(self) -> Result<BuildRow, StoreError> {
        Ok(BuildRow {
            id: parse("builds.id", &self.id)?,
            app: parse("builds.app_id", &self.app_id)?,
            created_at: time("builds.created_at", self.created_at)?,
            ended_at: self.ended_at.map(|at| time("builds.ended_at", at)).transpose()?,
            commit: self.commit_id,
            source: parse("builds.source", &self.source)?,
            stack: from_json("builds.stack_json", &self.stack_json)?,
            by: self.asked_by,
            releases: self.releases,
            status: from_word("builds.status", &self.status)?,
            attempts: self.attempts,
            image: self.image_json.map(|t| from_json("builds.image_json", &t)).transpose()?,
            manifest: self.manifest_json.map(|t| from_json("builds.manifest_json", &t)).transpose()?,
            trouble: self.trouble_json.map(|t| from_json("builds.trouble_json", &t)).transpose()?,
            release: self.release.map(i64::cast_unsigned),
        })
    }
}

/// Stores a new build.
///
/// # Errors
/// The store failed.
pub async fn insert(conn: &mut SqliteConnection, build: &BuildRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO builds (id, app_id, created_at, commit_id, source, stack_json, asked_by, releases, status)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(build.id.to_string())
    .bind(build.app.to_string())
    .bind(build.created_at.as_microsecond())
    .bind(&build.commit)
    .bind(build.source.as_str())
    .bind(to_json("builds.stack_json", &build.stack)?)
    .bind(&build.by)
    .bind(build.releases)
    .bind(to_word("builds.status", &build.status)?)
    .execute(conn)
    .await?;
    Ok(())
}

/// An app's build by id.
///
/// # Errors
/// The store failed.
pub async fn find(
    conn: &mut SqliteConnection,
    app: AppId,
    build: BuildId,
) -> Result<Option<BuildRow>, StoreError> {
    let row: Option<Row> = sqlx::query_as("SELECT * FROM builds WHERE app_id = ? AND id = ?")
        .bind(app.to_string())
        .bind(build.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(Row::into_build).transpose()
}

/// A build by id, whoever owns it: for a host, which is given builds of every team.
///
/// # Errors
/// The store failed.
pub async fn find_by_id(conn: &mut SqliteConnection, build: BuildId) -> Result<Option<BuildRow>, StoreError> {
    let row: Option<Row> = sqlx::query_as("SELECT * FROM builds WHERE id = ?")
        .bind(build.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(Row::into_build).transpose()
}

/// The newest build of a commit: pushing it again goes on from there.
///
/// # Errors
/// The store failed.
pub async fn find_by_commit(
    conn: &mut SqliteConnection,
    app: AppId,
    commit: &str,
) -> Result<Option<BuildRow>, StoreError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT * FROM builds WHERE app_id = ? AND commit_id = ? ORDER BY created_at DESC, id DESC LIMIT 1",
    )
    .bind(app.to_string())
    .bind(commit)
    .fetch_optional(conn)
    .await?;
    row.map(Row::into_build).transpose()
}

/// An app's newest builds, newest first.
///
/// # Errors
/// The store failed.
pub async fn list(conn: &mut SqliteConnection, app: AppId, limit: u32) -> Result<Vec<BuildRow>, StoreError> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT * FROM builds WHERE app_id = ? ORDER BY created_at DESC, id DESC LIMIT ?")
            .bind(app.to_string())
            .bind(limit)
            .fetch_all(conn)
            .await?;
    rows.into_iter().map(Row::into_build).collect()
}

/// Every build that has not ended, oldest first.
///
/// # Errors
/// The store failed.
pub async fn list_open(conn: &mut SqliteConnection) -> Result<Vec<BuildRow>, StoreError> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT * FROM builds WHERE status IN ('queued', 'running') ORDER BY created_at, id")
            .fetch_all(conn)
            .await?;
    rows.into_iter().map(Row::into_build).collect()
}

/// Stores where a build stands, as changed by the caller.
///
/// # Errors
/// The store failed.
pub async fn update(conn: &mut SqliteConnection, build: &BuildRow) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE builds SET ended_at = ?, status = ?, attempts = ?, image_json = ?, manifest_json = ?,
         trouble_json = ?, release = ? WHERE id = ?",
    )
    .bind(build.ended_at.map(Timestamp::as_microsecond))
    .bind(to_word("builds.status", &build.status)?)
    .bind(build.attempts)
    .bind(build.image.as_ref().map(|v| to_json("builds.image_json", v)).transpose()?)
    .bind(build.manifest.as_ref().map(|v| to_json("builds.manifest_json", v)).transpose()?)
    .bind(build.trouble.as_ref().map(|v| to_json("builds.trouble_json", v)).transpose()?)
    .bind(build.release.map(u64::cast_signed))
    .bind(build.id.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

/// The ids of all of an app's builds.
///
/// # Errors
/// The store failed.
pub async fn ids_list(conn: &mut SqliteConnection, app: AppId) -> Result<Vec<BuildId>, StoreError> {
    let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM builds WHERE app_id = ?")
        .bind(app.to_string())
        .fetch_all(conn)
        .await?;
    ids.iter().map(|id| parse("builds.id", id)).collect()
}

/// Deletes ended builds but for each app's newest, those a release came from and those a host still has; answers with
/// what was deleted.
///
/// # Errors
/// The store failed.
pub async fn expire(conn: &mut SqliteConnection, keep: u32) -> Result<Vec<BuildId>, StoreError> {
    let ids: Vec<String> = sqlx::query_scalar(
        "DELETE FROM builds WHERE status IN ('succeeded', 'failed')
         AND NOT EXISTS (SELECT 1 FROM releases WHERE releases.build_id = builds.id)
         AND NOT EXISTS (SELECT 1 FROM instances WHERE instances.build_id = builds.id)
         AND id IN (SELECT id FROM (SELECT id, row_number() OVER
         (PARTITION BY app_id ORDER BY created_at DESC, id DESC) AS n FROM builds) WHERE n > ?) RETURNING id",
    )
    .bind(keep)
    .fetch_all(conn)
    .await?;
    ids.iter().map(|id| parse("builds.id", id)).collect()
}

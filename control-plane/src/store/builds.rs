//! Builds: what was asked to be built, how far it is and what came of it. Sources and logs are files, not rows.

use berth_wire::api::{Build, BuildStatus};
use berth_wire::digest::Digest;
use berth_wire::id::{AppId, BuildId};
use berth_wire::image::{AppManifest, ImageRef};
use berth_wire::report::Trouble;
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};

use super::{StoreError, from_json, from_word, parse, time, to_json, to_word};

/// A build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRow {
    /// Which.
    pub id: BuildId,
    /// Whose.
    pub app: AppId,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The commit, for a push.
    pub commit: Option<String>,
    /// The source tree, an uncompressed tar.
    pub source: Digest,
    /// The stack it is built on.
    pub stack: ImageRef,
    /// Whose token asked.
    pub by: String,
    /// Whether its success makes a release by itself (an upload), or whoever asked does (a push, after its ref moved).
    pub releases: bool,
    /// Where it stands.
    pub status: BuildStatus,
    /// How often it was given to a host.
    pub attempts: u32,
    /// What it made.
    pub image: Option<ImageRef>,
    /// What is in it.
    pub manifest: Option<AppManifest>,
    /// Why it failed.
    pub trouble: Option<Trouble>,
    /// The release it became.
    pub release: Option<u64>,
}

impl BuildRow {
    /// A build that waits for a host.
    pub fn queued(
        id: BuildId,
        app: AppId,
        (source, stack): (Digest, ImageRef),
        commit: Option<String>,
        (by, releases): (&str, bool),
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            app,
            created_at: now,
            ended_at: None,
            commit,
            source,
            stack,
            by: by.to_owned(),
            releases,
            status: BuildStatus::Queued,
            attempts: 0,
            image: None,
            manifest: None,
            trouble: None,
            release: None,
        }
    }

    /// As the API shows it.
    pub fn to_wire(&self) -> Build {
        Build {
            id: self.id,
            created_at: self.created_at,
            ended_at: self.ended_at,
            commit: self.commit.clone(),
            status: self.status,
            trouble: self.trouble.clone(),
            release: self.release,
        }
    }
}

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

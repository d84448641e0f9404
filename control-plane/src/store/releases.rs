//! Releases: what was asked for, immutable, and where each stands.

use berth_wire::api::ReleaseStatus;
use berth_wire::id::AppId;
use berth_wire::report::Trouble;
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};

use super::{Store, StoreError, apps, from_json, from_word, parse, time, to_json, to_word};
use crate::domain::release::{Beginnings, Content, Draft, Release, Why, draft, head};

#[derive(FromRow)]
struct Row {
    app_id: String,
    version: i64,
    created_at: i64,
    description: String,
    made_by: String,
    status: String,
    switched_at: Option<i64>,
    trouble_json: Option<String>,
    image_json: String,
    manifest_json: String,
    commit_id: Option<String>,
    build_id: Option<String>,
    config_sealed: Vec<u8>,
    formation_json: String,
    restart_nonce: i64,
    runs_command: bool,
}

fn context(app: AppId, version: u64) -> String {
    format!("releases/{app}/{version}/config")
}

impl Row {
    fn into_release(self, store: &Store) -> Result<Release, StoreError> {
        let app = parse("releases.app_id", &self.app_id)?;
        let version = self.version.cast_unsigned();
        let config = store.sealer().open_sealed(&context(app, version), &self.config_sealed)?;
        let content = Content {
            image: from_json("releases.image_json", &self.image_json)?,
            manifest: from_json("releases.manifest_json", &self.manifest_json)?,
            commit: self.commit_id,
            build: self.build_id.map(|id| parse("releases.build_id", &id)).transpose()?,
            config: from_json("releases.config_sealed", &String::from_utf8_lossy(&config))?,
            formation: from_json("releases.formation_json", &self.formation_json)?,
            restart_nonce: self.restart_nonce.cast_unsigned(),
        };
        Ok(Release {
            app,
            version,
            created_at: time("releases.created_at", self.created_at)?,
            description: self.description,
            by: self.made_by,
            status: from_word("releases.status", &self.status)?,
            switched_at: self.switched_at.map(|at| time("releases.switched_at", at)).transpose()?,
            trouble: self.trouble_json.map(|t| from_json("releases.trouble_json", &t)).transpose()?,
            content,
            runs_command: self.runs_command,
        })
    }
}

/// Makes a release out of a change, on top of the release the app stands on. None if the change needs an image and
/// the app has none.
///
/// # Errors
/// The store failed.
pub async fn create(
    store: &Store,
    conn: &mut SqliteConnection,
    app: AppId,
    why: Why,
    by: &str,
    now: Timestamp,
) -> Result<Option<Release>, StoreError> {
    let base = head_find(store, conn, app).await?;
    let beginnings =
        if base.is_none() { apps::beginnings_find(store, conn, app).await? } else { Beginnings::default() };
    let Some(made) = draft(why, base.as_ref().map(|r| &r.content), &beginnings) else { return Ok(None) };
    Ok(Some(insert(store, conn, app, made, by, now).await?))
}

/// Stores a draft under the app's next version.
///
/// # Errors
/// The store failed.
pub async fn insert(
    store: &Store,
    conn: &mut SqliteConnection,
    app: AppId,
    draft: Draft,
    by: &str,
    now: Timestamp,
) -> Result<Release, StoreError> {
    let version: i64 =
        sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) + 1 FROM releases WHERE app_id = ?")
            .bind(app.to_string())
            .fetch_one(&mut *conn)
            .await?;
    let content = &draft.content;
    let config = to_json("releases.config_sealed", &content.config)?;
    let sealed = store.sealer().seal(&context(app, version.cast_unsigned()), config.as_bytes())?;
    sqlx::query(
        "INSERT INTO releases (app_id, version, created_at, description, made_by, status, image_json, manifest_json,
         commit_id, build_id, config_sealed, formation_json, restart_nonce, runs_command)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(app.to_string())
    .bind(version)
    .bind(now.as_microsecond())
    .bind(&draft.description)
    .bind(by)
    .bind(to_word("releases.status", &draft.status)?)
    .bind(to_json("releases.image_json", &content.image)?)
    .bind(to_json("releases.manifest_json", &content.manifest)?)
    .bind(&content.commit)
    .bind(content.build.map(|build| build.to_string()))
    .bind(sealed)
    .bind(to_json("releases.formation_json", &content.formation)?)
    .bind(content.restart_nonce.cast_signed())
    .bind(draft.runs_command)
    .execute(conn)
    .await?;
    Ok(Release {
        app,
        version: version.cast_unsigned(),
        created_at: now,
        description: draft.description,
        by: by.to_owned(),
        status: draft.status,
        switched_at: None,
        trouble: None,
        content: draft.content,
        runs_command: draft.runs_command,
    })
}

/// The release that a change to the app starts from.
///
/// # Errors
/// The store failed.
pub async fn head_find(
    store: &Store,
    conn: &mut SqliteConnection,
    app: AppId,
) -> Result<Option<Release>, StoreError> {
    let mut live = list_live_of(store, conn, app).await?;
    if live.is_empty() {
        live = list(store, conn, app, None, 1).await?;
    }
    Ok(head(&live).cloned())
}

/// One release.
///
/// # Errors
/// The store failed.
pub async fn find(
    store: &Store,
    conn: &mut SqliteConnection,
    app: AppId,
    version: u64,
) -> Result<Option<Release>, StoreError> {
    let row: Option<Row> = sqlx::query_as("SELECT * FROM releases WHERE app_id = ? AND version = ?")
        .bind(app.to_string())
        .bind(version.cast_signed())
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.into_release(store)).transpose()
}

/// An app's releases, newest first, those below `before` if given.
///
/// # Errors
/// The store failed.
pub async fn list(
    store: &Store,
    conn: &mut SqliteConnection,
    app: AppId,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<Release>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT * FROM releases WHERE app_id = ? AND version < ? ORDER BY version DESC LIMIT ?",
    )
    .bind(app.to_string())
    .bind(before.map_or(i64::MAX, u64::cast_signed))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| row.into_release(store)).collect()
}

/// The releases of one app that serve or are on their way.
///
/// # Errors
/// The store failed.
pub async fn list_live_of(
    store: &Store,
    conn: &mut SqliteConnection,
    app: AppId,
) -> Result<Vec<Release>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT * FROM releases WHERE app_id = ? AND status IN ('releasing', 'rolling', 'current') ORDER BY version",
    )
    .bind(app.to_string())
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| row.into_release(store)).collect()
}

/// The releases of every app that serve or are on their way.
///
/// # Errors
/// The store failed.
pub async fn list_live(store: &Store, conn: &mut SqliteConnection) -> Result<Vec<Release>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT * FROM releases WHERE status IN ('releasing', 'rolling', 'current') ORDER BY app_id, version",
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| row.into_release(store)).collect()
}

/// The last release that served before `version`.
///
/// # Errors
/// The store failed.
pub async fn find_served_before(
    store: &Store,
    conn: &mut SqliteConnection,
    app: AppId,
    version: u64,
) -> Result<Option<Release>, StoreError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT * FROM releases WHERE app_id = ? AND version < ? AND switched_at IS NOT NULL AND status <> 'failed'
         ORDER BY version DESC LIMIT 1",
    )
    .bind(app.to_string())
    .bind(version.cast_signed())
    .fetch_optional(conn)
    .await?;
    row.map(|row| row.into_release(store)).transpose()
}

/// Moves a release to another status.
///
/// # Errors
/// The store failed.
pub async fn update(
    conn: &mut SqliteConnection,
    (app, version): (AppId, u64),
    status: ReleaseStatus,
    switched_at: Option<Timestamp>,
    trouble: Option<&Trouble>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE releases SET status = ?, switched_at = ?, trouble_json = ? WHERE app_id = ? AND version = ?",
    )
    .bind(to_word("releases.status", &status)?)
    .bind(switched_at.map(Timestamp::as_microsecond))
    .bind(trouble.map(|t| to_json("releases.trouble_json", t)).transpose()?)
    .bind(app.to_string())
    .bind(version.cast_signed())
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes settled releases but for each app's newest and the one that serves.
///
/// # Errors
/// The store failed.
pub async fn expire(conn: &mut SqliteConnection, keep: u32) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "DELETE FROM releases WHERE status IN ('superseded', 'failed') AND (app_id, version) IN
         (SELECT app_id, version FROM (SELECT app_id, version, row_number() OVER
         (PARTITION BY app_id ORDER BY version DESC) AS n FROM releases) WHERE n > ?)",
    )
    .bind(keep)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

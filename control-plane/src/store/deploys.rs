//! Deploys: a build's way to its release, over the tables of both.

use berth_wire::api::BuildStatus;
use berth_wire::digest::Digest;
use berth_wire::id::{AppId, BuildId};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{Store, StoreError, builds, parse, releases};
use crate::domain::release::Why;

/// Makes the release of a build, once: called again, it gives the same version. None if the build is gone or has not
/// succeeded.
///
/// # Errors
/// The store failed.
pub async fn release_create(
    store: &Store,
    conn: &mut SqliteConnection,
    build: BuildId,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    let Some(mut row) = builds::find_by_id(conn, build).await? else { return Ok(None) };
    if row.release.is_some() {
        return Ok(row.release);
    }
    let (BuildStatus::Succeeded, Some(image), Some(manifest)) =
        (row.status, row.image.clone(), row.manifest.clone())
    else {
        return Ok(None);
    };
    let why = Why::Deploy { image, manifest, commit: row.commit.clone(), build: Some(build) };
    let Some(release) = releases::create(store, conn, row.app, why, &row.by, now).await? else {
        return Ok(None);
    };
    row.release = Some(release.version);
    builds::update(conn, &row).await?;
    Ok(row.release)
}

/// The commit of the newest push that became a release: where the app's deploy branch belongs.
///
/// # Errors
/// The store failed.
pub async fn pushed_commit_find(
    conn: &mut SqliteConnection,
    app: AppId,
) -> Result<Option<String>, StoreError> {
    let commit = sqlx::query_scalar(
        "SELECT commit_id FROM builds WHERE app_id = ? AND commit_id IS NOT NULL AND release IS NOT NULL
         ORDER BY release DESC LIMIT 1",
    )
    .bind(app.to_string())
    .fetch_optional(conn)
    .await?;
    Ok(commit)
}

/// The sources that a build still needs: of those that have not ended.
///
/// # Errors
/// The store failed.
pub async fn sources_needed(conn: &mut SqliteConnection) -> Result<Vec<Digest>, StoreError> {
    let sources: Vec<String> =
        sqlx::query_scalar("SELECT source FROM builds WHERE status IN ('queued', 'running')")
            .fetch_all(conn)
            .await?;
    sources.iter().map(|source| parse("builds.source", source)).collect()
}

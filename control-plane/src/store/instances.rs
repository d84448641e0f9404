//! Instances: where each was placed and why, and what its host last said about it.

use berth_wire::digest::Digest;
use berth_wire::id::{AppId, BuildId, HostId, InstanceId};
use berth_wire::quota::Quota;
use berth_wire::spec::{Desired, InstanceSpec};
use sqlx::{FromRow, SqliteConnection};

use super::{Store, StoreError, from_json, from_word, parse, time, to_json, to_word};
pub use crate::domain::placed::Placed;

#[derive(FromRow)]
struct Row {
    id: String,
    host_id: String,
    fingerprint: String,
    release: i64,
    build_id: Option<String>,
    desired: String,
    reason: String,
    created_at: i64,
    spec_sealed: Vec<u8>,
    report_json: Option<String>,
}

fn context(instance: InstanceId) -> String {
    format!("instances/{instance}")
}

impl Row {
    fn into_placed(self, store: &Store) -> Result<Placed, StoreError> {
        let id = parse("instances.id", &self.id)?;
        let plain = store.sealer().open_sealed(&context(id), &self.spec_sealed)?;
        let mut spec: InstanceSpec = from_json("instances.spec_sealed", &String::from_utf8_lossy(&plain))?;
        spec.desired = from_word("instances.desired", &self.desired)?;
        Ok(Placed {
            spec,
            host: parse("instances.host_id", &self.host_id)?,
            fingerprint: self.fingerprint,
            release: self.release.cast_unsigned(),
            build: self.build_id.map(|b| parse("instances.build_id", &b)).transpose()?,
            reason: self.reason,
            created_at: time("instances.created_at", self.created_at)?,
            report: self.report_json.map(|r| from_json("instances.report_json", &r)).transpose()?,
        })
    }
}

/// Stores a new instance.
///
/// # Errors
/// The store failed.
pub async fn insert(store: &Store, conn: &mut SqliteConnection, placed: &Placed) -> Result<(), StoreError> {
    let plain = to_json("instances.spec_sealed", &placed.spec)?;
    sqlx::query(
        "INSERT INTO instances (id, app_id, host_id, fingerprint, release, build_id, desired, reason, created_at,
         spec_sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(placed.spec.id.to_string())
    .bind(placed.spec.app.to_string())
    .bind(placed.host.to_string())
    .bind(&placed.fingerprint)
    .bind(placed.release.cast_signed())
    .bind(placed.build.map(|b| b.to_string()))
    .bind(to_word("instances.desired", &placed.spec.desired)?)
    .bind(&placed.reason)
    .bind(placed.created_at.as_microsecond())
    .bind(store.sealer().seal(&context(placed.spec.id), plain.as_bytes())?)
    .execute(conn)
    .await?;
    Ok(())
}

/// Every instance of every app.
///
/// # Errors
/// The store failed.
pub async fn list_all(store: &Store, conn: &mut SqliteConnection) -> Result<Vec<Placed>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as("SELECT * FROM instances ORDER BY id").fetch_all(conn).await?;
    rows.into_iter().map(|row| row.into_placed(store)).collect()
}

/// An app's instances, oldest first.
///
/// # Errors
/// The store failed.
pub async fn list(store: &Store, conn: &mut SqliteConnection, app: AppId) -> Result<Vec<Placed>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as("SELECT * FROM instances WHERE app_id = ? ORDER BY id")
        .bind(app.to_string())
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(|row| row.into_placed(store)).collect()
}

/// Changes what should be true of an instance, and says why.
///
/// # Errors
/// The store failed.
pub async fn desired_update(
    conn: &mut SqliteConnection,
    instance: InstanceId,
    desired: Desired,
    reason: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE instances SET desired = ?, reason = ? WHERE id = ?")
        .bind(to_word("instances.desired", &desired)?)
        .bind(reason)
        .bind(instance.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes an instance over into a newer release.
///
/// # Errors
/// The store failed.
pub async fn release_update(
    conn: &mut SqliteConnection,
    instance: InstanceId,
    release: u64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE instances SET release = ? WHERE id = ?")
        .bind(release.cast_signed())
        .bind(instance.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Gives an instance another quota.
///
/// # Errors
/// The store failed.
pub async fn quota_update(
    store: &Store,
    conn: &mut SqliteConnection,
    instance: InstanceId,
    quota: Quota,
) -> Result<(), StoreError> {
    let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT spec_sealed FROM instances WHERE id = ?")
        .bind(instance.to_string())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(sealed) = sealed else { return Ok(()) };
    let plain = store.sealer().open_sealed(&context(instance), &sealed)?;
    let spec: InstanceSpec = from_json("instances.spec_sealed", &String::from_utf8_lossy(&plain))?;
    let plain = to_json("instances.spec_sealed", &InstanceSpec { quota, ..spec })?;
    sqlx::query("UPDATE instances SET spec_sealed = ? WHERE id = ?")
        .bind(store.sealer().seal(&context(instance), plain.as_bytes())?)
        .bind(instance.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets an instance: it leaves its host's spec.
///
/// # Errors
/// The store failed.
pub async fn delete(conn: &mut SqliteConnection, instance: InstanceId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM instances WHERE id = ?").bind(instance.to_string()).execute(conn).await?;
    Ok(())
}

/// Whether a build was placed on this host.
///
/// # Errors
/// The store failed.
pub async fn has_build(
    conn: &mut SqliteConnection,
    host: HostId,
    build: BuildId,
) -> Result<bool, StoreError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM instances WHERE host_id = ? AND build_id = ? LIMIT 1")
            .bind(host.to_string())
            .bind(build.to_string())
            .fetch_optional(conn)
            .await?;
    Ok(found.is_some())
}

/// Whether a build placed on this host has this source.
///
/// # Errors
/// The store failed.
pub async fn has_source(
    conn: &mut SqliteConnection,
    host: HostId,
    source: &Digest,
) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM instances JOIN builds ON builds.id = instances.build_id
         WHERE instances.host_id = ? AND builds.source = ? LIMIT 1",
    )
    .bind(host.to_string())
    .bind(source.as_str())
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

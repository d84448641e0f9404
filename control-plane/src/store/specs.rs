//! The spec of each host, as the planner last wrote it. It holds config vars, so it is sealed.

use berth_wire::id::HostId;
use berth_wire::spec::{Generation, Spec};
use sqlx::{FromRow, SqliteConnection};

use super::{Store, StoreError, from_json, to_json};

#[derive(FromRow)]
struct Row {
    number: i64,
    spec_sealed: Vec<u8>,
}

fn context(host: HostId) -> String {
    format!("specs/{host}")
}

/// The generation and content digest of a host's spec, if it has one.
///
/// # Errors
/// The store failed.
pub async fn head_find(
    conn: &mut SqliteConnection,
    host: HostId,
) -> Result<Option<(u64, String)>, StoreError> {
    let head: Option<(i64, String)> =
        sqlx::query_as("SELECT number, content_digest FROM specs WHERE host_id = ?")
            .bind(host.to_string())
            .fetch_optional(conn)
            .await?;
    Ok(head.map(|(number, digest)| (number.cast_unsigned(), digest)))
}

/// A host's spec if it is newer than `after` (or of another epoch).
///
/// # Errors
/// The store failed.
pub async fn find_newer(
    store: &Store,
    conn: &mut SqliteConnection,
    host: HostId,
    after: Option<Generation>,
) -> Result<Option<Spec>, StoreError> {
    // The number only, first: a long poll asks this on every wake-up.
    let Some((number, _)) = head_find(conn, host).await? else { return Ok(None) };
    if after == Some(Generation { epoch: store.epoch(), number }) {
        return Ok(None);
    }
    let row: Option<Row> = sqlx::query_as("SELECT number, spec_sealed FROM specs WHERE host_id = ?")
        .bind(host.to_string())
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let plain = store.sealer().open_sealed(&context(host), &row.spec_sealed)?;
    let mut spec: Spec = from_json("specs.spec_sealed", &String::from_utf8_lossy(&plain))?;
    spec.generation = Generation { epoch: store.epoch(), number: row.number.cast_unsigned() };
    Ok(Some(spec))
}

/// Stores a host's spec. The caller has made its generation grow.
///
/// # Errors
/// The store failed.
pub async fn put(store: &Store, conn: &mut SqliteConnection, spec: &Spec) -> Result<(), StoreError> {
    let plain = to_json("specs.spec_sealed", spec)?;
    sqlx::query(
        "INSERT INTO specs (host_id, number, content_digest, spec_sealed) VALUES (?, ?, ?, ?)
         ON CONFLICT (host_id) DO UPDATE SET number = excluded.number,
         content_digest = excluded.content_digest, spec_sealed = excluded.spec_sealed",
    )
    .bind(spec.host.to_string())
    .bind(spec.generation.number.cast_signed())
    .bind(spec.content_digest().as_str())
    .bind(store.sealer().seal(&context(spec.host), plain.as_bytes())?)
    .execute(conn)
    .await?;
    Ok(())
}

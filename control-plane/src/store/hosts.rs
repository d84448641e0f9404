//! Hosts: their credentials, and what they last said they are. What they run is in `instances`.

use berth_wire::id::HostId;
use berth_wire::report::{EdgeReport, HostFacts};
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};
use subtle::ConstantTimeEq as _;

use super::seal::secret_hash;
use super::{StoreError, from_json, parse, time};
pub use crate::domain::host::HostRow;

/// What every host token's secret starts with.
pub const PREFIX: &str = "berth_host_";

#[derive(FromRow)]
struct Row {
    id: String,
    name: String,
    secret_sha256: Vec<u8>,
    seen_at: Option<i64>,
    facts_json: String,
    edge_json: String,
    events_received: i64,
}

impl Row {
    fn into_host(self) -> Result<HostRow, StoreError> {
        // A host that never reported has `{}`.
        let reported = self.seen_at.is_some();
        Ok(HostRow {
            id: parse("hosts.id", &self.id)?,
            name: self.name,
            seen_at: self.seen_at.map(|at| time("hosts.seen_at", at)).transpose()?,
            facts: if reported {
                from_json("hosts.facts_json", &self.facts_json)?
            } else {
                HostFacts::default()
            },
            edge: if reported {
                from_json("hosts.edge_json", &self.edge_json)?
            } else {
                EdgeReport::default()
            },
            events_received: self.events_received.cast_unsigned(),
        })
    }
}

/// Adds a host.
///
/// # Errors
/// The store failed; a duplicate if the name is taken.
pub async fn insert(
    conn: &mut SqliteConnection,
    host: HostId,
    name: &str,
    secret: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO hosts (id, name, secret_sha256, created_at) VALUES (?, ?, ?, ?)")
        .bind(host.to_string())
        .bind(name)
        .bind(secret_hash(secret))
        .bind(now.as_microsecond())
        .execute(conn)
        .await?;
    Ok(())
}

/// The host that a secret stands for.
///
/// # Errors
/// The store failed.
pub async fn find_by_secret(conn: &mut SqliteConnection, secret: &str) -> Result<Option<HostId>, StoreError> {
    let hash = secret_hash(secret);
    let row: Option<Row> = sqlx::query_as("SELECT * FROM hosts WHERE secret_sha256 = ?")
        .bind(&hash)
        .fetch_optional(conn)
        .await?;
    match row.filter(|row| bool::from(row.secret_sha256.ct_eq(&hash))) {
        Some(row) => Ok(Some(parse("hosts.id", &row.id)?)),
        None => Ok(None),
    }
}

/// Every host, oldest first.
///
/// # Errors
/// The store failed.
pub async fn list(conn: &mut SqliteConnection) -> Result<Vec<HostRow>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as("SELECT * FROM hosts ORDER BY id").fetch_all(conn).await?;
    rows.into_iter().map(Row::into_host).collect()
}

/// One host.
///
/// # Errors
/// The store failed.
pub async fn find(conn: &mut SqliteConnection, host: HostId) -> Result<Option<HostRow>, StoreError> {
    let row: Option<Row> = sqlx::query_as("SELECT * FROM hosts WHERE id = ?")
        .bind(host.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(Row::into_host).transpose()
}

//! What happened to an app, for `berth logs` and the dashboard.

use berth_wire::api::Event;
use berth_wire::id::AppId;
use sqlx::{FromRow, SqliteConnection};

use super::{StoreError, parse, time};

#[derive(FromRow)]
struct Row {
    at: i64,
    process: String,
    code: Option<String>,
    message: String,
}

/// Stores an event. An app that is gone has no events: then nothing is stored.
///
/// # Errors
/// The store failed.
pub async fn insert(conn: &mut SqliteConnection, app: AppId, event: &Event) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO events (app_id, at, process, code, message)
         SELECT id, ?, ?, ?, ? FROM apps WHERE id = ?",
    )
    .bind(event.at.as_microsecond())
    .bind(&event.process)
    .bind(event.code.map(|code| code.to_string()))
    .bind(&event.message)
    .bind(app.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

/// An app's newest events, newest first.
///
/// # Errors
/// The store failed.
pub async fn list(conn: &mut SqliteConnection, app: AppId, limit: u32) -> Result<Vec<Event>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT at, process, code, message FROM events WHERE app_id = ? ORDER BY id DESC LIMIT ?",
    )
    .bind(app.to_string())
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Event {
                at: time("events.at", row.at)?,
                process: row.process,
                code: row.code.map(|code| parse("events.code", &code)).transpose()?,
                message: row.message,
            })
        })
        .collect()
}

/// Deletes all but an app's newest events.
///
/// # Errors
/// The store failed.
pub async fn expire(conn: &mut SqliteConnection, keep: u32) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "DELETE FROM events WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER
         (PARTITION BY app_id ORDER BY id DESC) AS n FROM events) WHERE n > ?)",
    )
    .bind(keep)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// An app's events that were stored after the one with number `after`, oldest first, with their numbers.
///
/// # Errors
/// The store failed.
pub async fn list_after(
    conn: &mut SqliteConnection,
    app: AppId,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, Event)>, StoreError> {
    let rows: Vec<(i64, i64, String, Option<String>, String)> = sqlx::query_as(
        "SELECT id, at, process, code, message FROM events WHERE app_id = ? AND id > ? ORDER BY id LIMIT ?",
    )
    .bind(app.to_string())
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|(number, at, process, code, message)| {
            let code = code.map(|code| parse("events.code", &code)).transpose()?;
            Ok((number, Event { at: time("events.at", at)?, process, code, message }))
        })
        .collect()
}

/// The number of the newest event there is, of any app.
///
/// # Errors
/// The store failed.
pub async fn newest_number(conn: &mut SqliteConnection) -> Result<i64, StoreError> {
    let number: Option<i64> = sqlx::query_scalar("SELECT MAX(id) FROM events").fetch_one(conn).await?;
    Ok(number.unwrap_or(0))
}

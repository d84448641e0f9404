//! Apps, their domains, and what they stand on before their first release.

use berth_wire::id::{AppId, TeamId};
use berth_wire::name::{AppName, Domain};
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};

use super::{Store, StoreError, from_json, parse, time, to_json};
pub use crate::domain::app::AppRow;
use crate::domain::release::Beginnings;

#[derive(FromRow)]
struct Row {
    id: String,
    team_id: String,
    name: String,
    created_at: i64,
    deleted_at: Option<i64>,
    domains: String,
}

impl Row {
    fn into_app(self) -> Result<AppRow, StoreError> {
        let domains: Vec<Domain> = from_json("domains.domain", &self.domains)?;
        Ok(AppRow {
            id: parse("apps.id", &self.id)?,
            team: parse("apps.team_id", &self.team_id)?,
            name: parse("apps.name", &self.name)?,
            created_at: time("apps.created_at", self.created_at)?,
            deleted_at: self.deleted_at.map(|at| time("apps.deleted_at", at)).transpose()?,
            domains,
        })
    }
}

fn context(app: AppId) -> String {
    format!("apps/{app}/config")
}

/// Stores a new app with its first domain.
///
/// # Errors
/// The store failed; a duplicate if the name or the domain is taken.
pub async fn insert(store: &Store, conn: &mut SqliteConnection, app: &AppRow) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO apps (id, team_id, name, created_at, config_sealed) VALUES (?, ?, ?, ?, ?)")
        .bind(app.id.to_string())
        .bind(app.team.to_string())
        .bind(app.name.as_str())
        .bind(app.created_at.as_microsecond())
        .bind(store.sealer().seal(&context(app.id), b"{}")?)
        .execute(&mut *conn)
        .await?;
    for domain in &app.domains {
        sqlx::query("INSERT INTO domains (domain, app_id) VALUES (?, ?)")
            .bind(domain.as_str())
            .bind(app.id.to_string())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// A team's app by name.
///
/// # Errors
/// The store failed.
pub async fn find(
    conn: &mut SqliteConnection,
    team: TeamId,
    name: &AppName,
) -> Result<Option<AppRow>, StoreError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT *, (SELECT json_group_array(domain) FROM domains WHERE app_id = apps.id) AS domains FROM apps
         WHERE team_id = ? AND name = ? AND deleted_at IS NULL",
    )
    .bind(team.to_string())
    .bind(name.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(Row::into_app).transpose()
}

/// An app by id, whoever owns it: for the platform's own work, never for a request's path.
///
/// # Errors
/// The store failed.
pub async fn find_by_id(conn: &mut SqliteConnection, app: AppId) -> Result<Option<AppRow>, StoreError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT *, (SELECT json_group_array(domain) FROM domains WHERE app_id = apps.id) AS domains FROM apps
         WHERE id = ?",
    )
    .bind(app.to_string())
    .fetch_optional(conn)
    .await?;
    row.map(Row::into_app).transpose()
}

/// A team's apps by name.
///
/// # Errors
/// The store failed.
pub async fn list(conn: &mut SqliteConnection, team: TeamId) -> Result<Vec<AppRow>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT *, (SELECT json_group_array(domain) FROM domains WHERE app_id = apps.id) AS domains FROM apps
         WHERE team_id = ? AND deleted_at IS NULL ORDER BY name",
    )
    .bind(team.to_string())
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::into_app).collect()
}

/// Every app of every team, deleted ones that still have something to stop included.
///
/// # Errors
/// The store failed.
pub async fn list_all(conn: &mut SqliteConnection) -> Result<Vec<AppRow>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT *, (SELECT json_group_array(domain) FROM domains WHERE app_id = apps.id) AS domains FROM apps
         ORDER BY id",
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::into_app).collect()
}

/// What an app stands on before its first release.
///
/// # Errors
/// The store failed.
pub async fn beginnings_find(
    store: &Store,
    conn: &mut SqliteConnection,
    app: AppId,
) -> Result<Beginnings, StoreError> {
    let (sealed, formation): (Vec<u8>, String) =
        sqlx::query_as("SELECT config_sealed, formation_json FROM apps WHERE id = ?")
            .bind(app.to_string())
            .fetch_one(conn)
            .await?;
    let config = store.sealer().open_sealed(&context(app), &sealed)?;
    Ok(Beginnings {
        config: from_json("apps.config_sealed", &String::from_utf8_lossy(&config))?,
        formation: from_json("apps.formation_json", &formation)?,
    })
}

/// Changes what an app stands on before its first release.
///
/// # Errors
/// The store failed.
pub async fn beginnings_put(
    store: &Store,
    conn: &mut SqliteConnection,
    app: AppId,
    beginnings: &Beginnings,
) -> Result<(), StoreError> {
    let config = to_json("apps.config_sealed", &beginnings.config)?;
    sqlx::query("UPDATE apps SET config_sealed = ?, formation_json = ? WHERE id = ?")
        .bind(store.sealer().seal(&context(app), config.as_bytes())?)
        .bind(to_json("apps.formation_json", &beginnings.formation)?)
        .bind(app.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Marks an app deleted and frees its name and domains; its instances are then stopped by the planner.
///
/// # Errors
/// The store failed.
pub async fn mark_deleted(conn: &mut SqliteConnection, app: AppId, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM domains WHERE app_id = ?").bind(app.to_string()).execute(&mut *conn).await?;
    sqlx::query("UPDATE apps SET deleted_at = ? WHERE id = ?")
        .bind(now.as_microsecond())
        .bind(app.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets a deleted app for good, with everything that was its own. Its instances must have left.
///
/// # Errors
/// The store failed.
pub async fn purge(conn: &mut SqliteConnection, app: AppId) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM events WHERE app_id = ?",
        "DELETE FROM instances WHERE app_id = ?",
        "DELETE FROM releases WHERE app_id = ?",
        "DELETE FROM builds WHERE app_id = ?",
        "DELETE FROM domains WHERE app_id = ?",
        "DELETE FROM apps WHERE id = ?",
    ] {
        sqlx::query(statement).bind(app.to_string()).execute(&mut *conn).await?;
    }
    Ok(())
}

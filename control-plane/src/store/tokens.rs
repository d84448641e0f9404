//! API tokens: who acts, and for which team. Only a hash of the secret is kept.

use berth_wire::api::Token;
use berth_wire::id::{TeamId, TokenId};
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};
use subtle::ConstantTimeEq as _;

use super::seal::secret_hash;
use super::{StoreError, parse, time};

/// What every API token's secret starts with.
pub const PREFIX: &str = "berth_";

/// Whom a secret stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The token.
    pub id: TokenId,
    /// Its team.
    pub team: TeamId,
    /// Its name: what releases and events say who did it.
    pub name: String,
    /// When it was last used.
    pub used_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct Row {
    id: String,
    team_id: String,
    name: String,
    secret_sha256: Vec<u8>,
    created_at: i64,
    used_at: Option<i64>,
}

impl Row {
    fn into_token(self) -> Result<Token, StoreError> {
        Ok(Token {
            id: parse("tokens.id", &self.id)?,
            name: self.name,
            created_at: time("tokens.created_at", self.created_at)?,
            used_at: self.used_at.map(|at| time("tokens.used_at", at)).transpose()?,
        })
    }
}

/// Stores a token whose secret was just made.
///
/// # Errors
/// The store failed.
pub async fn insert(
    conn: &mut SqliteConnection,
    team: TeamId,
    token: &Token,
    secret: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO tokens (id, team_id, name, secret_sha256, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(token.id.to_string())
        .bind(team.to_string())
        .bind(&token.name)
        .bind(secret_hash(secret))
        .bind(token.created_at.as_microsecond())
        .execute(conn)
        .await?;
    Ok(())
}

/// Whom a secret stands for. The look-up is by hash, and what was found is compared in constant time.
///
/// # Errors
/// The store failed.
pub async fn find_by_secret(conn: &mut SqliteConnection, secret: &str) -> Result<Option<Bearer>, StoreError> {
    let hash = secret_hash(secret);
    let row: Option<Row> = sqlx::query_as("SELECT * FROM tokens WHERE secret_sha256 = ?")
        .bind(&hash)
        .fetch_optional(conn)
        .await?;
    let Some(row) = row.filter(|row| bool::from(row.secret_sha256.ct_eq(&hash))) else { return Ok(None) };
    let team = parse("tokens.team_id", &row.team_id)?;
    let token = row.into_token()?;
    Ok(Some(Bearer { id: token.id, team, name: token.name, used_at: token.used_at }))
}

/// Notes that a token was used.
///
/// # Errors
/// The store failed.
pub async fn mark_used(
    conn: &mut SqliteConnection,
    token: TokenId,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE tokens SET used_at = ? WHERE id = ?")
        .bind(now.as_microsecond())
        .bind(token.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// A team's tokens, oldest first.
///
/// # Errors
/// The store failed.
pub async fn list(conn: &mut SqliteConnection, team: TeamId) -> Result<Vec<Token>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as("SELECT * FROM tokens WHERE team_id = ? ORDER BY id")
        .bind(team.to_string())
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(Row::into_token).collect()
}

/// Deletes a token; false if the team has none with that id.
///
/// # Errors
/// The store failed.
pub async fn delete(conn: &mut SqliteConnection, team: TeamId, token: TokenId) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM tokens WHERE team_id = ? AND id = ?")
        .bind(team.to_string())
        .bind(token.to_string())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

//! What whoever owns the data directory may do without a token: make the first token, add a host.

use berth_wire::api::{CreatedToken, Token};
use berth_wire::id::{HostId, TeamId, TokenId};
use jiff::Timestamp;
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::store::seal::secret_new;
use crate::store::{Store, StoreError, hosts, teams, tokens};

/// Longest name of a token or host, in characters: one line of a table.
pub const NAME_CHARS_MAX: usize = 80;

/// Why it was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The name cannot be used.
    #[error("{0:?} is not a name: use 1 to {NAME_CHARS_MAX} printable characters")]
    Name(String),
    /// There is such a host.
    #[error("there is a host {0} already; choose another name")]
    HostExists(String),
}

/// Checks a name that people give to a token or host.
///
/// # Errors
/// It is empty, too long or has control characters.
pub fn check_name(name: &str) -> Result<(), AdminError> {
    let length = name.chars().count();
    let valid = (1..=NAME_CHARS_MAX).contains(&length) && !name.chars().any(char::is_control);
    if valid && name.trim() == name {
        Ok(())
    } else {
        Err(AdminError::Name(name.chars().take(100).collect()))
    }
}

/// Makes a token in the default team and gives its secret.
///
/// # Errors
/// The name cannot be used, or the store failed.
pub async fn token_create(store: &Store, name: &str, now: Timestamp) -> Result<String, AdminError> {
    let mut tx = store.begin().await?;
    let made = token_make(&mut tx, teams::DEFAULT, name, now).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(made.secret)
}

/// Makes a token in a team, inside the caller's transaction.
///
/// # Errors
/// The name cannot be used, or the store failed.
pub async fn token_make(
    conn: &mut SqliteConnection,
    team: TeamId,
    name: &str,
    now: Timestamp,
) -> Result<CreatedToken, AdminError> {
    check_name(name)?;
    let secret = secret_new(tokens::PREFIX).map_err(StoreError::from)?;
    let token = Token { id: TokenId(Uuid::now_v7()), name: name.to_owned(), created_at: now, used_at: None };
    tokens::insert(conn, team, &token, &secret).await?;
    Ok(CreatedToken { token, secret })
}

/// Adds a host and gives its id and its token.
///
/// # Errors
/// The name cannot be used or is taken, or the store failed.
pub async fn host_add(store: &Store, name: &str, now: Timestamp) -> Result<(HostId, String), AdminError> {
    check_name(name)?;
    let secret = secret_new(hosts::PREFIX).map_err(StoreError::from)?;
    let host = HostId(Uuid::now_v7());
    let mut tx = store.begin().await?;
    match hosts::insert(&mut tx, host, name, &secret, now).await {
        Err(e) if e.is_duplicate() => return Err(AdminError::HostExists(name.to_owned())),
        other => other?,
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok((host, secret))
}

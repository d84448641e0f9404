//! The store: SQLite in WAL with `synchronous=FULL`, and the only place with SQL. One file per aggregate, functions
//! named for their verb, each over a connection so that callers compose them into one transaction.
//!
//! There is *one* writer connection, and a write begins with `BEGIN IMMEDIATE`: a deferred transaction that upgrades
//! to a write fails at once under load. Readers see the last commit and never wait.

pub mod apps;
pub mod builds;
pub mod census;
pub mod deploys;
pub mod events;
pub mod hosts;
pub mod instances;
pub mod releases;
pub mod reports;
pub mod seal;
pub mod specs;
pub mod stacks;
pub mod teams;
pub mod tokens;

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, Transaction};

use crate::private;
use seal::{SealError, Sealer};

/// The store's file in the data directory.
const FILE: &str = "berth.db";

/// Connections that read: as many as requests are usefully answered at once on a small machine.
const READERS_MAX: u32 = 8;

/// How long SQLite waits for a lock that another process (`berthd token create`) holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The store.
#[derive(Clone)]
pub struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    sealer: Sealer,
    epoch: u64,
}

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory cannot be used.
    #[error(
        "cannot use {path} as the data directory: {source}; check that it exists and belongs to this user"
    )]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite said no.
    #[error("the store failed: {0}")]
    Sqlite(#[from] sqlx::Error),
    /// The store could not be brought to this version's schema.
    #[error("the store could not be migrated: {0}; a newer berthd may have written it")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A secret could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What is stored does not parse.
    #[error("the store holds {what} that does not parse: {why}")]
    Corrupt {
        /// Which column.
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl StoreError {
    /// Whether a UNIQUE constraint was broken: somebody else has it already.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Sqlite(sqlx::Error::Database(e)) if e.is_unique_violation())
    }
}

impl Store {
    /// Opens (or makes) the store in a data directory and brings its schema up to date.
    ///
    /// # Errors
    /// The directory is unusable, SQLite fails, or a newer version wrote the store.
    pub async fn open(data: &Path, now: Timestamp) -> Result<Self, StoreError> {
        let directory = |source| StoreError::Directory { path: data.display().to_string(), source };
        private::dir(data).map_err(directory)?;
        // SQLite gives the files beside it the permissions that it has; those of an earlier process may differ.
        private::file(&data.join(FILE)).map_err(directory)?;
        for beside in ["-wal", "-shm"] {
            private::close(&data.join(format!("{FILE}{beside}"))).map_err(directory)?;
        }
        let sealer = Sealer::open(data)?;
        let options = SqliteConnectOptions::new()
            .filename(data.join(FILE))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!("../migrations").run(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .connect_with(options.read_only(true))
            .await?;
        let epoch = epoch_find_or_make(&writer, now).await?;
        Ok(Self { writer, readers, sealer, epoch })
    }

    /// Unix seconds of the store's creation or last restore.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What seals secrets.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Begins a write. It is undone unless committed.
    ///
    /// # Errors
    /// The lock could not be had in time.
    pub async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// A connection that reads the last commit.
    ///
    /// # Errors
    /// None became free in time.
    pub async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.readers.acquire().await?)
    }
}

async fn epoch_find_or_make(writer: &SqlitePool, now: Timestamp) -> Result<u64, StoreError> {
    sqlx::query("INSERT OR IGNORE INTO meta (key, value) VALUES ('epoch', ?)")
        .bind(now.as_second().to_string())
        .execute(writer)
        .await?;
    let value: String =
        sqlx::query_scalar("SELECT value FROM meta WHERE key = 'epoch'").fetch_one(writer).await?;
    parse("meta.epoch", &value)
}

/// Stored text into its type.
pub(crate) fn parse<T: FromStr<Err: Display>>(what: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|why: T::Err| StoreError::Corrupt { what, why: why.to_string() })
}

/// Stored JSON into its type.
pub(crate) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|why| StoreError::Corrupt { what, why: why.to_string() })
}

/// A type into JSON to be stored.
pub(crate) fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|why| StoreError::Corrupt { what, why: why.to_string() })
}

/// An enum without fields as its serde name.
pub(crate) fn to_word<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    Ok(to_json(what, value)?.trim_matches('"').to_owned())
}

/// An enum without fields from its serde name.
pub(crate) fn from_word<T: DeserializeOwned>(what: &'static str, word: &str) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(word.to_owned()))
        .map_err(|why| StoreError::Corrupt { what, why: why.to_string() })
}

/// Stored microseconds into a time.
pub(crate) fn time(what: &'static str, microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds)
        .map_err(|why| StoreError::Corrupt { what, why: why.to_string() })
}

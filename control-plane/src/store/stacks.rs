//! Stacks: which image is the base that apps are built and run on.

use berth_wire::api::Stack;
use berth_wire::image::ImageRef;
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};

use super::{StoreError, parse, time};

#[derive(FromRow)]
struct Row {
    name: String,
    repository: String,
    digest: String,
    imported_at: i64,
}

impl Row {
    fn into_stack(self) -> Result<Stack, StoreError> {
        Ok(Stack {
            name: self.name,
            image: ImageRef { repository: self.repository, digest: parse("stacks.digest", &self.digest)? },
            imported_at: time("stacks.imported_at", self.imported_at)?,
        })
    }
}

/// Makes a stack's name stand for an image.
///
/// # Errors
/// The store failed.
pub async fn put(
    conn: &mut SqliteConnection,
    name: &str,
    image: &ImageRef,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO stacks (name, repository, digest, imported_at) VALUES (?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET repository = excluded.repository, digest = excluded.digest,
         imported_at = excluded.imported_at",
    )
    .bind(name)
    .bind(&image.repository)
    .bind(image.digest.as_str())
    .bind(now.as_microsecond())
    .execute(conn)
    .await?;
    Ok(())
}

/// Every stack, newest first: the first is what apps are built on.
///
/// # Errors
/// The store failed.
pub async fn list(conn: &mut SqliteConnection) -> Result<Vec<Stack>, StoreError> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT * FROM stacks ORDER BY imported_at DESC, name").fetch_all(conn).await?;
    rows.into_iter().map(Row::into_stack).collect()
}

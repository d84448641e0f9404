//! Forgets what nobody asks for any more, so that the store does not grow for ever.

use std::time::Duration;

use crate::app::App;
use crate::store::{StoreError, events};

/// How often.
const EVERY: Duration = Duration::from_secs(3_600);

/// Events kept of each app: a week of a busy one; 1,000 apps of them are 300 MB at 300 bytes each, the worst case.
const EVENTS_KEPT: u32 = 1_000;

/// The loop.
pub async fn run(app: App) {
    loop {
        match expire(&app).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "old events deleted"),
            Err(error) => tracing::error!(%error, "old events could not be deleted"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn expire(app: &App) -> Result<u64, StoreError> {
    let mut tx = app.store.begin().await?;
    let rows = events::expire(&mut tx, EVENTS_KEPT).await?;
    tx.commit().await?;
    Ok(rows)
}

//! Forgets what nobody asks for any more, so that the store does not grow for ever.

use std::time::Duration;

use crate::app::App;
use crate::store::{builds, events, releases};

/// How often.
const EVERY: Duration = Duration::from_secs(3_600);

/// Events kept of each app: a week of a busy one; 1,000 apps of them are 300 MB at 300 bytes each, the worst case.
const EVENTS_KEPT: u32 = 1_000;

/// Releases kept of each app beside those that serve: a year of a push every other day.
const RELEASES_KEPT: u32 = 200;

/// Builds kept of each app beside those that a kept release came from, with their output of at most 32 MiB each.
const BUILDS_KEPT: u32 = 100;

/// The loop.
pub async fn run(app: App) {
    loop {
        match expire(&app).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "old events, releases and builds deleted"),
            Err(error) => tracing::error!(%error, "old rows could not be deleted"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn expire(app: &App) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let mut tx = app.store.begin().await?;
    let mut rows = events::expire(&mut tx, EVENTS_KEPT).await?;
    rows += releases::expire(&mut tx, RELEASES_KEPT).await?;
    let gone = builds::expire(&mut tx, BUILDS_KEPT).await?;
    tx.commit().await?;
    for build in &gone {
        app.build_logs.remove(*build).await?;
    }
    Ok(rows + gone.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::fleet::Fleet;

    #[tokio::test]
    async fn expiring_must_keep_what_serves_and_what_it_came_from() {
        let fleet = Fleet::new().await;
        fleet.create("shop").await;
        let build = fleet.upload("shop").await;
        fleet.beats(10).await;
        let mut tx = fleet.app.store.begin().await.unwrap();
        assert_eq!(releases::expire(&mut tx, 0).await.unwrap(), 0);
        assert_eq!(builds::expire(&mut tx, 0).await.unwrap(), []);
        tx.commit().await.unwrap();
        assert_eq!(fleet.build("shop", build).await.release, Some(1));
        fleet.deploy("shop", "bbbbbbbb", &[("web", "run")]).await;
        fleet.beats(10).await;
        let mut tx = fleet.app.store.begin().await.unwrap();
        assert_eq!(releases::expire(&mut tx, 0).await.unwrap(), 1);
        assert_eq!(builds::expire(&mut tx, 0).await.unwrap(), [build]);
    }
}

//! Removes files that nothing refers to any more: sources of builds that have ended, blobs whose repository is gone,
//! repositories of purged apps, old build logs. What the store says is looked up *after* the files were listed, so that
//! whatever is made meanwhile is not in the list; young blobs are left alone, as whoever wrote one may be about to refer
//! to it.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use berth_wire::digest::Digest;

use crate::app::App;
use crate::blobs::BlobError;
use crate::registry::Repository;
use crate::store::{StoreError, apps, deploys};

/// How often.
const EVERY: Duration = Duration::from_secs(3_600);
/// Blobs younger than this stay: longer than an upload or a push may take between storing and referring.
const YOUNG: Duration = Duration::from_secs(3_600);
/// Build logs older than this go.
const LOGS_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Most files removed in one go; the rest waits an hour. Some seconds of work.
const REMOVED_MAX: usize = 10_000;

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum GarbageError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Another file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The blocking part panicked.
    #[error(transparent)]
    Join(#[from] tokio::task::JoinError),
}

/// The loop.
pub async fn run(app: App) {
    loop {
        match collect(&app, SystemTime::now()).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "files that nothing refers to were removed"),
            Err(error) => tracing::error!(%error, "garbage could not be collected; it is tried again"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Looks once; how many files and repositories were removed.
///
/// # Errors
/// The store or the file system failed; what was removed before is.
pub async fn collect(app: &App, now: SystemTime) -> Result<usize, GarbageError> {
    let listing = app.clone();
    let (blobs, images, pushed) = tokio::task::spawn_blocking(move || {
        let blobs = listing.blobs.list()?;
        Ok::<_, GarbageError>((
            blobs,
            listing.registry.links().repositories(),
            listing.git.repositories.list()?,
        ))
    })
    .await??;
    let mut conn = app.store.read().await?;
    let alive: HashSet<_> = apps::list_all(&mut conn).await?.into_iter().map(|app| app.id).collect();
    let needed: HashSet<Digest> = deploys::sources_needed(&mut conn).await?.into_iter().collect();
    drop(conn);
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let mut removed = app.build_logs.remove_older(now - LOGS_KEPT)?;
        for gone in pushed.iter().filter(|id| !alive.contains(id)) {
            app.git.repositories.remove(*gone)?;
            removed += 1;
        }
        let links = app.registry.links();
        let dead = |repository: &Repository| matches!(repository, Repository::App(id) if !alive.contains(id));
        let (dead, kept): (Vec<_>, Vec<_>) = images.into_iter().partition(dead);
        for repository in &dead {
            links.remove(repository)?;
            removed += 1;
        }
        // Repositories made since the listing hold only blobs that are young, or are in another one too.
        let mut marked = needed;
        marked.extend(
            kept.iter().chain(&links.repositories()).flat_map(|repository| links.digests(repository)),
        );
        let old = |stored: SystemTime| now.duration_since(stored).is_ok_and(|age| age > YOUNG);
        let garbage =
            blobs.into_iter().filter(|(digest, stored, _)| old(*stored) && !marked.contains(digest));
        for (digest, _, _) in garbage.take(REMOVED_MAX) {
            app.blobs.remove(&digest)?;
            removed += 1;
        }
        Ok(removed)
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Clock;
    use crate::config::Config;
    use berth_wire::id::AppId;
    use uuid::Uuid;

    #[tokio::test]
    async fn only_what_nothing_refers_to_must_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let address = "127.0.0.1:1".parse().unwrap();
        let config =
            Config::new(dir.path(), address, "http://localhost:1", "http://localhost:2".parse().unwrap());
        let app = App::open(config, Clock::system()).await.unwrap();
        let loose = app.blobs.put(b"an old source").await.unwrap();
        let shared = app.blobs.put(b"a layer").await.unwrap();
        let orphan = app.blobs.put(b"a layer of a purged app").await.unwrap();
        let gone = AppId(Uuid::from_u128(1));
        let links = app.registry.links();
        links.add_blob(&Repository::Layers, &shared).unwrap();
        links.add_blob(&Repository::App(gone), &orphan).unwrap();
        app.git.repositories.ensure(gone).await.unwrap();

        collect(&app, SystemTime::now()).await.unwrap();
        assert!(app.blobs.size(&loose).await.is_some(), "a young blob must stay");
        assert!(!app.git.repositories.exists(gone));
        let later = SystemTime::now() + 2 * YOUNG;
        assert_eq!(collect(&app, later).await.unwrap(), 2);
        assert!(app.blobs.size(&shared).await.is_some());
        assert!(app.blobs.size(&loose).await.is_none() && app.blobs.size(&orphan).await.is_none());
    }
}

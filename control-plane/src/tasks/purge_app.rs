//! Forgets a deleted app for good, once its instances have left: first its files, then its rows, so that a kill in
//! between leaves rows that make it begin again.

use berth_wire::id::AppId;

use crate::app::App;
use crate::registry::Repository;
use crate::store::{StoreError, apps, builds};

/// Forgets one app. What fails is tried again at the planner's next look.
pub async fn purge_app(app: &App, gone: AppId) {
    match purge(app, gone).await {
        Ok(()) => tracing::info!(app = %gone, "a deleted app is gone"),
        Err(error) => tracing::error!(app = %gone, %error, "a deleted app could not be removed yet"),
    }
}

async fn purge(app: &App, gone: AppId) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (repositories, registry) = (app.git.repositories.clone(), app.registry.clone());
    tokio::task::spawn_blocking(move || {
        repositories.remove(gone)?;
        registry.links().remove(&Repository::App(gone)).map_err(std::io::Error::other)
    })
    .await??;
    let builds = builds::ids_list(&mut *app.store.read().await?, gone).await?;
    for build in builds {
        app.build_logs.remove(build).await?;
    }
    let mut tx = app.store.begin().await?;
    apps::purge(&mut tx, gone).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

//! Running: the listener, the background tasks, and a clean stop. A stop may as well be kill -9: whatever was
//! acknowledged is in the store.

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::git;
use crate::router::router;
use crate::tasks;

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("D12 cannot listen on {address}: {source}; stop what listens there or choose another --listen")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Git's hooks cannot be set up.
    #[error("cannot prepare for git push in the data directory: {0}")]
    Git(std::io::Error),
    /// The server failed.
    #[error("the server failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The address cannot be had, or the listener failed.
pub async fn serve(app: App) -> Result<(), ServeError> {
    let address = app.config.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
    tracing::info!(address = %listener.local_addr()?, data = %app.config.data.display(), "berthd serves");
    tasks::start(&app);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    let program = std::env::current_exe()?;
    let hooks = git::start(&app, &program).await.map_err(ServeError::Git)?;
    // Long polls and followed logs would hold a graceful shutdown up for as long as they last: clients reconnect.
    tokio::select! {
        served = axum::serve(listener, router(app)) => served?,
        () = stop => tracing::info!("berthd stops"),
    }
    hooks.abort();
    Ok(())
}

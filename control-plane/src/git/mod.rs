//! `git push`: smart HTTP through the system's `git http-backend`, and what happens inside a push. *pre-receive builds,
//! post-receive releases; the store is the truth and refs follow it.*
//!
//! ```text
//! git push ──HTTP──> http.rs ──> cgi.rs ──> git http-backend ──> git receive-pack
//!                                                                  ├─ pre-receive  (hook.rs) ──socket──> build.rs
//!    remote: lines  <──────────── sideband ────────────────────────┤                                     the ref moves only
//!                                                                  │                                     if the build succeeds
//!                                                                  └─ post-receive (hook.rs) ──socket──> release.rs
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `rules.rs`, `protocol.rs` | which pushes are allowed; what hooks and `berthd` say to each other |
//! | `repository.rs`, `reconcile.rs` | bare repositories; refs made to agree with the store |
//! | `pushes.rs` | what is under way, one push an app at a time |
//! | `listen.rs`, `talk.rs` | the private socket's server, and one conversation on it |
//! | `build.rs`, `release.rs` | the two halves of a push |
//!
//! A build is the store's, not the push's: a connection that breaks stops the push, never the build. Pushing the same
//! commit again finds it by its commit and goes on from there.

mod build;
mod cgi;
pub mod hook;
mod http;
mod listen;
pub mod protocol;
mod pushes;
mod reconcile;
mod release;
mod repository;
pub mod rules;
mod socket;
mod talk;

use std::io;
use std::path::Path;

use axum::Router;
use axum::routing::any;

use crate::app::App;
pub use pushes::Pushes;
pub use reconcile::reconcile_all;
pub use repository::Repositories;

/// Git's part of what every handler shares. Cheap to clone.
#[derive(Clone)]
pub struct Git {
    /// The repositories.
    pub repositories: Repositories,
    /// What is under way.
    pub pushes: Pushes,
    running: std::sync::Arc<tokio::sync::Semaphore>,
}

/// Most git processes at once: each may use some hundred MiB while it indexes a large pack.
const GIT_PROCESSES_MAX: usize = 16;

impl Git {
    /// Opens (or makes) the folder of repositories. One push's pack may have at most `pack_bytes_max`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path, pack_bytes_max: u64) -> io::Result<Self> {
        Ok(Self {
            repositories: Repositories::open(dir, pack_bytes_max)?,
            pushes: Pushes::default(),
            running: std::sync::Arc::new(tokio::sync::Semaphore::new(GIT_PROCESSES_MAX)),
        })
    }
}

/// `/git/NAME.git/…`.
pub fn routes() -> Router<App> {
    Router::new().route("/git/{repository}/{*rest}", any(http::serve))
}

/// Makes pushes possible: installs `program` (this very binary) as the hook, brings refs in line with the store, and
/// listens to hooks until the returned task is dropped.
///
/// # Errors
/// The hooks or the socket cannot be made.
pub async fn start(app: &App, program: &Path) -> io::Result<tokio::task::JoinHandle<()>> {
    app.git.repositories.install_hooks(program)?;
    let listener = tokio::net::UnixListener::from_std(socket::bind(app.git.repositories.dir())?)?;
    reconcile_all(app).await;
    Ok(tokio::spawn(listen::serve(app.clone(), listener)))
}

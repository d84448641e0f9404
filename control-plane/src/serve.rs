//! Running: the listener, the background tasks, and a clean stop. A stop may as well be kill -9: whatever was
//! acknowledged is in the store.

use std::time::Duration;

use axum::serve::ListenerExt as _;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
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

/// A client that vanished without a word (a laptop's lid, a lost route) is noticed within this time when it is silent...
const SILENCE: Duration = Duration::from_secs(30);
/// ...by this many questions, so far apart, that nobody answers.
const PROBES: u32 = 3;
const PROBE_GAP: Duration = Duration::from_secs(10);
/// What was sent must be acknowledged within this time, else the connection is given up: otherwise tcp(7) tries for a
/// quarter of an hour, and a push whose client is gone would own its app for as long. It also ends a client that is there
/// but reads nothing for that time, which is why it is not shorter.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);

/// Has the kernel notice that the other end is gone. A socket that does not take it still serves.
fn notice_vanished(stream: &mut TcpStream) {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let milliseconds = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    let set = setsockopt(stream, sockopt::KeepAlive, &true)
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepIdle, &seconds(SILENCE)))
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepInterval, &seconds(PROBE_GAP)))
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepCount, &PROBES))
        .and_then(|()| setsockopt(stream, sockopt::TcpUserTimeout, &milliseconds));
    if let Err(error) = set {
        tracing::warn!(%error, "a connection whose client vanishes will be noticed late");
    }
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
        served = axum::serve(listener.tap_io(notice_vanished), router(app)) => served?,
        () = stop => tracing::info!("berthd stops"),
    }
    hooks.abort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    #[tokio::test]
    async fn a_connection_must_notice_that_its_client_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        notice_vanished(&mut stream);
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
        let idle = getsockopt(&stream, sockopt::TcpKeepIdle).unwrap();
        let probing = getsockopt(&stream, sockopt::TcpKeepInterval).unwrap()
            * getsockopt(&stream, sockopt::TcpKeepCount).unwrap();
        assert!(idle + probing <= 60, "{idle} + {probing}");
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout).unwrap(), 120_000);
    }
}

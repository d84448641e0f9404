//! The listening socket: inherited or bound; accepting, the cap on connections, the graceful end.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_wire::code::Code;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Edge;
use crate::client_io::ClientIo;
use crate::proxy::{self, Connection};

/// The first inherited descriptor (sd_listen_fds(3)).
const LISTEN_FDS_START: i32 = 3;

/// What a connection above the cap gets: no parsing, no waiting.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nBerth-Code: H99\r\nContent-Type: text/plain\r\n\
Content-Length: 62\r\nConnection: close\r\n\r\nH99: the edge has all the connections it can hold. Try later.\n";

/// The listening socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// LISTEN_FDS is not understood.
    #[error("LISTEN_FDS is {0:?}; the edge takes exactly one listening TCP socket, as descriptor 3")]
    Inherited(String),
    /// Descriptor 3 is no listening TCP socket.
    #[error("LISTEN_FDS says that descriptor 3 is a listening TCP socket; it is not: {0}")]
    NoSocket(io::Error),
    /// Binding failed.
    #[error(
        "could not listen on {address}: {source}; choose another with --listen, or end what has it (ss -ltnp)"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The socket that a supervisor hands over, or one bound to `address`.
///
/// # Errors
/// When there is neither.
pub fn listener(address: SocketAddr) -> Result<StdListener, ListenError> {
    let bind = |source| ListenError::Bind { address, source };
    let listener = match inherited()? {
        Some(listener) => listener,
        None => StdListener::bind(address).map_err(bind)?,
    };
    listener.set_nonblocking(true).map_err(bind)?;
    Ok(listener)
}

/// sd_listen_fds(3): LISTEN_PID, where it is set, must be this process.
fn inherited() -> Result<Option<StdListener>, ListenError> {
    let Ok(count) = std::env::var("LISTEN_FDS") else { return Ok(None) };
    if std::env::var("LISTEN_PID").is_ok_and(|pid| pid != std::process::id().to_string()) {
        return Ok(None);
    }
    if count != "1" {
        return Err(ListenError::Inherited(count));
    }
    let is_tcp = getsockname::<SockaddrStorage>(LISTEN_FDS_START)
        .map(|name| matches!(name.family(), Some(AddressFamily::Inet | AddressFamily::Inet6)))
        .map_err(|error| ListenError::NoSocket(error.into()))?;
    if !is_tcp {
        return Err(ListenError::NoSocket(io::Error::other("another address family")));
    }
    // SAFETY: descriptor 3 is open (getsockname succeeded), LISTEN_FDS says that it was passed to this process for it
    // to own, and this function is called once, at start, before anything else could have taken the number.
    let fd = unsafe { OwnedFd::from_raw_fd(LISTEN_FDS_START) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|error| ListenError::NoSocket(error.into()))?;
    Ok(Some(StdListener::from(fd)))
}

/// Accepts until `stop`; connections then end with the request that they are at.
pub async fn accept(listener: TcpListener, edge: Arc<Edge>, stop: CancellationToken) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                let before = edge.stats.connections.fetch_add(1, Ordering::Relaxed);
                let open = Open(edge.clone());
                if before >= edge.limits.connections_max {
                    // A socket's buffer is empty at first: this never waits, and never matters if it fails.
                    let _ = stream.try_write(FULL);
                    continue;
                }
                edge.tasks.spawn(serve(stream, Connection { client, port }, open, stop.clone()));
            }
            Err(error) => {
                // Out of descriptors, mostly: those that end make room.
                tracing::error!(%error, "could not accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One open connection, counted while this exists.
struct Open(Arc<Edge>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.stats.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection, to its end.
async fn serve(stream: TcpStream, connection: Connection, open: Open, stop: CancellationToken) {
    let edge = open.0.clone();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let io = TokioIo::new(ClientIo::new(stream, edge.limits.silence_max));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(edge.limits.head_read_max)
        .max_buf_size(edge.limits.head_bytes_max)
        .max_header_size(edge.limits.head_bytes_max);
    let service = service_fn(|request| {
        let edge = edge.clone();
        async move { Ok::<_, std::convert::Infallible>(proxy::serve(edge, connection, request).await) }
    });
    let mut serving = std::pin::pin!(builder.serve_connection(io, service).with_upgrades());
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        if error.is_parse() {
            // The parser has answered 400 or 431 and closed; there was no request that could be logged.
            edge.stats.error(Code::H41);
        }
        tracing::debug!(client = %connection.client, %error, "connection ended");
    }
}

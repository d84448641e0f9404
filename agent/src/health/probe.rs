//! One check: a TCP connection to the port, then optionally one HTTP request (RFC 9112) whose status must be below 400.

use std::net::SocketAddr;
use std::time::Duration;

use berth_wire::image::HealthCheck;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A status line is at most this long; what follows it is not read.
const STATUS_LINE_BYTES_MAX: usize = 256;

/// Why a check failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwell {
    /// Nobody listens, as far as the container's address is concerned.
    #[error("nothing accepts connections on port {0}")]
    NotListening(u16),
    /// It took too long.
    #[error("{0} took longer than {1} s")]
    TooSlow(String, u64),
    /// It answered with an error.
    #[error("GET {path} answered {status}")]
    Status {
        /// The path that was asked for.
        path: String,
        /// The status it answered with.
        status: u16,
    },
    /// It accepted the connection and then spoke no HTTP.
    #[error("GET {0} got no HTTP answer")]
    NotHttp(String),
}

/// Checks once.
///
/// # Errors
/// What was found wrong.
pub async fn probe(address: SocketAddr, check: &HealthCheck) -> Result<(), Unwell> {
    let limit = Duration::from_secs(check.timeout_seconds.max(1).into());
    let what =
        check.http_path.as_ref().map_or_else(|| "a connection".to_owned(), |path| format!("GET {path}"));
    match tokio::time::timeout(limit, attempt(address, check.http_path.as_deref())).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Unwell::TooSlow(what, limit.as_secs())),
    }
}

async fn attempt(address: SocketAddr, path: Option<&str>) -> Result<(), Unwell> {
    let mut stream = TcpStream::connect(address).await.map_err(|_| Unwell::NotListening(address.port()))?;
    let Some(path) = path else { return Ok(()) };
    let not_http = |_| Unwell::NotHttp(path.to_owned());
    // The path comes from the app's own file: what could end the request line early is refused.
    let safe = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
    if !safe {
        return Err(Unwell::NotHttp(path.chars().take(80).collect()));
    }
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: berth-health\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(not_http)?;
    let mut head = Vec::new();
    let mut limited = stream.take(STATUS_LINE_BYTES_MAX as u64);
    while !head.contains(&b'\n') {
        if limited.read_buf(&mut head).await.map_err(not_http)? == 0 {
            break;
        }
    }
    match status(&head) {
        Some(status) if status < 400 => Ok(()),
        Some(status) => Err(Unwell::Status { path: path.to_owned(), status }),
        None => Err(Unwell::NotHttp(path.to_owned())),
    }
}

/// The status of a status line (RFC 9112 4).
fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|&b| b == b'\n').next()?).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status: u16 = words.next()?.trim().parse().ok()?;
    (100..600).contains(&status).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
            }
        });
        address
    }

    fn http() -> HealthCheck {
        HealthCheck { http_path: Some("/healthz".into()), timeout_seconds: 1, ..HealthCheck::default() }
    }

    #[tokio::test]
    async fn a_listener_must_be_enough_without_a_path() {
        let address = answering(b"").await;
        assert_eq!(probe(address, &HealthCheck::default()).await, Ok(()));
    }

    #[tokio::test]
    async fn a_port_without_listener_must_be_unwell() {
        let address = "127.0.0.1:1".parse().unwrap();
        assert_eq!(probe(address, &HealthCheck::default()).await, Err(Unwell::NotListening(1)));
    }

    #[tokio::test]
    async fn the_status_must_decide_when_there_is_a_path() {
        assert_eq!(probe(answering(b"HTTP/1.1 302 Found\r\n\r\n").await, &http()).await, Ok(()));
        let error = probe(answering(b"HTTP/1.0 500 Oh no\r\n\r\n").await, &http()).await.unwrap_err();
        assert_eq!(error, Unwell::Status { path: "/healthz".into(), status: 500 });
        let error = probe(answering(b"SSH-2.0-x\r\n").await, &http()).await.unwrap_err();
        assert_eq!(error, Unwell::NotHttp("/healthz".into()));
    }

    #[tokio::test]
    async fn a_path_must_not_smuggle_a_second_request() {
        let address = answering(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let check = HealthCheck { http_path: Some("/ HTTP/1.1\r\nX: y".into()), ..http() };
        assert!(matches!(probe(address, &check).await, Err(Unwell::NotHttp(_))));
    }
}

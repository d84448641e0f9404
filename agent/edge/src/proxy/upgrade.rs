//! A connection that became a tunnel (WebSocket and the like): bytes both ways until both sides have ended, either
//! breaks, or nothing moves for too long. It counts as in flight to its instance until then.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use berth_wire::code::Code;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};

use super::exchange::Exchange;

/// One direction's buffer: two of them are what an idle WebSocket costs.
const BUFFER_BYTES: usize = 8 << 10;

/// Longest from the 101 to both connections being free for the tunnel; the client's is as soon as the 101 is written.
const BEGIN_MAX: Duration = Duration::from_secs(10);

/// Both ends, as soon as they are free.
pub struct Tunnel {
    /// The client's.
    pub client: OnUpgrade,
    /// The instance's.
    pub upstream: OnUpgrade,
}

/// Bytes passed and when, of both directions.
struct Meter {
    begun: Instant,
    bytes: AtomicU64,
    /// Milliseconds from `begun`.
    last: AtomicU64,
}

impl Meter {
    fn passed(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

/// Runs the tunnel beside the connection that it came from.
pub fn start(tunnel: Tunnel, mut exchange: Box<Exchange>) {
    exchange.upgraded = Some(exchange.started.elapsed());
    let tasks = exchange.edge.tasks.clone();
    tasks.spawn(async move {
        let both = async { tokio::try_join!(tunnel.client, tunnel.upstream) };
        let Ok(Ok((client, upstream))) = timeout(BEGIN_MAX, both).await else {
            exchange.code = Some(Code::H13);
            return;
        };
        carry(client, upstream, &mut exchange).await;
    });
}

async fn carry(client: Upgraded, upstream: Upgraded, exchange: &mut Exchange) {
    let meter = Meter { begun: Instant::now(), bytes: AtomicU64::new(0), last: AtomicU64::new(0) };
    let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
    let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
    let silence_max = exchange.edge.limits.silence_max;
    let both = async {
        tokio::try_join!(copy(client_read, upstream_write, &meter), copy(upstream_read, client_write, &meter))
    };
    tokio::select! {
        ended = both => {
            if let Err(error) = ended {
                tracing::debug!(%error, "tunnel broke");
            }
        }
        () = silence(&meter, silence_max) => exchange.code = Some(Code::H15),
    }
    exchange.bytes = meter.bytes.load(Ordering::Relaxed);
}

/// Returns when nothing has moved for too long.
async fn silence(meter: &Meter, silence_max: Duration) {
    loop {
        let deadline = meter.last() + silence_max;
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline.into()).await;
    }
}

/// One direction, to its end, which is passed on.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    meter: &Meter,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        meter.passed(read);
    }
}

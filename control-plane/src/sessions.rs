//! Sessions: a rendezvous between somebody at the API and an agent behind NAT (see `berth_wire::session`). In memory
//! only: a restart of the control plane ends them, and whoever opened one asks again. A session is either read (chunks that
//! an agent posts: logs, metrics) or goes both ways (a connection that the agent had upgraded: attach, exec).
//!
//! ```text
//! open ──> waiting ──(agent's poll)──> handed out ──(agent's POST)──> streaming ──> either side hangs up
//!              ^            │ not claimed within 3 s: handed out again
//!              └────────────┘
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_wire::id::{HostId, SessionId};
use berth_wire::session::{Session, SessionRequest};
use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

/// Most sessions of one host at once: some people, each with a few followed logs.
const PER_HOST_MAX: usize = 128;
/// Chunks kept between an agent and a slow reader; then the agent waits.
const CHUNKS_MAX: usize = 16;
/// A session that was handed out and not claimed was lost with the answer: it is handed out again after this.
const CLAIM_WITHIN: Duration = Duration::from_secs(3);

/// The sessions that are open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    open: Arc<Mutex<HashMap<SessionId, Open>>>,
    added: watch::Sender<u64>,
}

#[derive(Debug)]
struct Open {
    host: HostId,
    request: SessionRequest,
    handed_out: Option<Instant>,
    /// Taken by the agent that claims it.
    end: Option<AgentEnd>,
}

/// What the agent of a session is given.
#[derive(Debug)]
enum AgentEnd {
    Chunks(mpsc::Sender<Bytes>),
    Both(oneshot::Sender<Duplex>),
}

/// A connection that goes both ways.
pub type Duplex = TokioIo<Upgraded>;

/// A session that goes both ways, until the agent has connected. Dropped, it is over.
#[derive(Debug)]
pub struct DuplexSession {
    id: SessionId,
    sessions: Sessions,
    stream: oneshot::Receiver<Duplex>,
}

/// The reading end. Dropped, the session is over and the agent's next write fails.
#[derive(Debug)]
pub struct SessionStream {
    id: SessionId,
    sessions: Sessions,
    chunks: mpsc::Receiver<Bytes>,
}

/// The host has too many sessions already.
#[derive(Debug, thiserror::Error)]
#[error(
    "the host has {PER_HOST_MAX} sessions (followed logs, attached commands) open already; close some and try again"
)]
pub struct TooMany;

impl Default for Sessions {
    fn default() -> Self {
        Self { open: Arc::default(), added: watch::Sender::new(0) }
    }
}

impl Sessions {
    /// Asks a host's agent for a stream.
    ///
    /// # Errors
    /// The host has too many already.
    pub fn open(&self, host: HostId, request: SessionRequest) -> Result<SessionStream, TooMany> {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        let id = self.add(host, request, AgentEnd::Chunks(sender))?;
        Ok(SessionStream { id, sessions: self.clone(), chunks })
    }

    /// Asks a host's agent for a stream that goes both ways.
    ///
    /// # Errors
    /// The host has too many already.
    pub fn open_duplex(&self, host: HostId, request: SessionRequest) -> Result<DuplexSession, TooMany> {
        let (sender, stream) = oneshot::channel();
        let id = self.add(host, request, AgentEnd::Both(sender))?;
        Ok(DuplexSession { id, sessions: self.clone(), stream })
    }

    fn add(&self, host: HostId, request: SessionRequest, end: AgentEnd) -> Result<SessionId, TooMany> {
        let id = SessionId(Uuid::now_v7());
        {
            let mut open = self.lock();
            if open.values().filter(|one| one.host == host).count() >= PER_HOST_MAX {
                return Err(TooMany);
            }
            open.insert(id, Open { host, request, handed_out: None, end: Some(end) });
        }
        self.added.send_modify(|n| *n += 1);
        Ok(id)
    }

    /// The sessions that wait for this host: at once if there are some, else after at most `wait`.
    pub async fn waiting(&self, host: HostId, wait: Duration) -> Vec<Session> {
        let deadline = Instant::now() + wait;
        let mut added = self.added.subscribe();
        loop {
            let found = self.hand_out(host, Instant::now());
            let left = deadline.saturating_duration_since(Instant::now());
            if !found.is_empty() || left.is_zero() {
                return found;
            }
            // The timer also finds those that were handed out and never claimed.
            let _ = tokio::time::timeout(left.min(CLAIM_WITHIN), added.changed()).await;
        }
    }

    fn hand_out(&self, host: HostId, now: Instant) -> Vec<Session> {
        let mut open = self.lock();
        let mine = open.iter_mut().filter(|(_, one)| one.host == host && one.end.is_some());
        let due =
            mine.filter(|(_, one)| one.handed_out.is_none_or(|at| now.duration_since(at) >= CLAIM_WITHIN));
        due.map(|(id, one)| {
            one.handed_out = Some(now);
            Session { id: *id, request: one.request.clone() }
        })
        .collect()
    }

    /// Gives the writing end to the host's agent; none if there is no such session (any more) or it was claimed.
    pub fn claim(&self, host: HostId, id: SessionId) -> Option<mpsc::Sender<Bytes>> {
        match self.take(host, id, |end| matches!(end, AgentEnd::Chunks(_)))? {
            AgentEnd::Chunks(sender) => Some(sender),
            AgentEnd::Both(_) => None,
        }
    }

    /// As [`Self::claim`], for a session that goes both ways: where the upgraded connection is to be sent.
    pub fn claim_duplex(&self, host: HostId, id: SessionId) -> Option<oneshot::Sender<Duplex>> {
        match self.take(host, id, |end| matches!(end, AgentEnd::Both(_)))? {
            AgentEnd::Both(sender) => Some(sender),
            AgentEnd::Chunks(_) => None,
        }
    }

    fn take(&self, host: HostId, id: SessionId, kind: fn(&AgentEnd) -> bool) -> Option<AgentEnd> {
        self.lock().get_mut(&id).filter(|one| one.host == host)?.end.take_if(|end| kind(end))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionStream {
    /// The next chunk; none when the agent has ended the stream.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.chunks.recv().await
    }
}

impl DuplexSession {
    /// The agent's connection; none if it does not come within this time.
    pub async fn connected(mut self, within: Duration) -> Option<Duplex> {
        tokio::time::timeout(within, &mut self.stream).await.ok()?.ok()
    }
}

impl Drop for DuplexSession {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.id);
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u128) -> HostId {
        HostId(Uuid::from_u128(n))
    }

    #[tokio::test]
    async fn a_waiting_agent_must_get_a_session_and_stream_to_its_opener() {
        let sessions = Sessions::default();
        let asking = sessions.clone();
        let poll = tokio::spawn(async move { asking.waiting(host(1), Duration::from_secs(20)).await });
        let mut stream = sessions.open(host(1), SessionRequest::Metrics).unwrap();
        let found = poll.await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(sessions.claim(host(2), found[0].id).is_none());
        let sender = sessions.claim(host(1), found[0].id).unwrap();
        assert!(sessions.claim(host(1), found[0].id).is_none());
        sender.send(Bytes::from_static(b"x")).await.unwrap();
        drop(sender);
        assert_eq!(stream.next().await.unwrap(), "x");
        assert_eq!(stream.next().await, None);
    }

    #[tokio::test]
    async fn a_session_that_was_not_claimed_must_be_handed_out_again() {
        let sessions = Sessions::default();
        let _stream = sessions.open(host(1), SessionRequest::Metrics).unwrap();
        let now = Instant::now();
        assert_eq!(sessions.hand_out(host(1), now).len(), 1);
        assert_eq!(sessions.hand_out(host(1), now).len(), 0);
        assert_eq!(sessions.hand_out(host(1), now + CLAIM_WITHIN).len(), 1);
    }

    #[tokio::test]
    async fn a_reader_that_hangs_up_must_end_the_session() {
        let sessions = Sessions::default();
        let stream = sessions.open(host(1), SessionRequest::Metrics).unwrap();
        let id = sessions.hand_out(host(1), Instant::now())[0].id;
        let sender = sessions.claim(host(1), id).unwrap();
        drop(stream);
        assert!(sender.is_closed());
        assert!(sessions.lock().is_empty());
    }
}

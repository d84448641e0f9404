//! Sessions: a rendezvous between somebody at the API and an agent behind NAT. The agent asks for the sessions
//! that wait for it, then opens one outgoing stream per session. Sessions are not persisted: whoever opened one
//! asks again.
//!
//! `GET  /agent/v1/sessions?wait=25` answers `[Session]`, at once if one waits, else after `wait` seconds with `[]`.
//! `POST /agent/v1/sessions/ID` carries the stream: JSON lines of [`crate::log::LogLine`] for a log session, the
//! text format of Prometheus for a metrics session.

use serde::{Deserialize, Serialize};

use crate::id::{AppId, SessionId};

/// One session that waits for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Which.
    pub id: SessionId,
    /// What is asked.
    pub request: SessionRequest,
}

/// What is asked of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SessionRequest {
    /// The last lines of an app's log, then (with `follow`) every new one until the other side hangs up.
    Logs {
        /// Whose log.
        app: AppId,
        /// Only this process type or instance: `web` or `web.1`.
        process: Option<String>,
        /// How many of the last lines.
        lines: u32,
        /// Whether to go on.
        follow: bool,
    },
    /// The agent's `/metrics`, for hosts that Prometheus cannot reach.
    Metrics,
}

/// Most lines of history one session may ask for.
pub const LOG_LINES_MAX: u32 = 10_000;

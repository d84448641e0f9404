//! Sessions: a rendezvous between somebody at the API and an agent behind NAT. The agent asks for the sessions
//! that wait for it, then opens one outgoing stream per session. Sessions are not persisted: whoever opened one
//! asks again.
//!
//! `GET  /agent/v1/sessions?wait=25` answers `[Session]`, at once if one waits, else after `wait` seconds with `[]`.
//! `POST /agent/v1/sessions/ID` carries the stream: JSON lines of [`crate::log::LogLine`] for a log session, the
//! text format of Prometheus for a metrics session.
//! `GET  /agent/v1/sessions/ID/stream` with `Upgrade` is the same for a stream in both directions (attach and exec).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attach::TerminalSize;
use crate::id::{AppId, InstanceId, SessionId};

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
        /// Only this process type or instance, `web` or `web.1`, or only the requests: `router`.
        process: Option<String>,
        /// How many of the last lines.
        lines: u32,
        /// Whether to go on.
        follow: bool,
    },
    /// The agent's `/metrics`, for hosts that Prometheus cannot reach.
    Metrics,
    /// The standard streams of a one-off whose spec says that somebody is attached. An upgraded stream of [`crate::attach`].
    Attach {
        /// Which instance of this host.
        instance: InstanceId,
    },
    /// Another command inside a running instance. An upgraded stream of [`crate::attach`].
    Exec {
        /// In which instance of this host.
        instance: InstanceId,
        /// The argument vector.
        argv: Vec<String>,
        /// Variables beside the instance's own. May hold secrets: never logged.
        env: BTreeMap<String, String>,
        /// A terminal of this size; pipes if none.
        terminal: Option<TerminalSize>,
    },
}

/// Most lines of history one session may ask for.
pub const LOG_LINES_MAX: u32 = 10_000;

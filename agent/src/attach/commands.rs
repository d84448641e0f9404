//! What each kind of attached session does: a one-off's streams are fetched, a further command is started in its instance;
//! both are then pumped to the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_wire::attach::{AttachFailure, Frame, TerminalSize};
use berth_wire::code::Code;
use berth_wire::id::InstanceId;
use berth_wire::report::{Exit, Trouble};
use berth_wire::session::SessionRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::attachments::Stage;
use super::pump::{Ending, Outgoing, Target, pump, split};
use super::{HANGUP_GRACE, Streams};
use crate::container::{Executed, Host, Output, StartError};
use crate::launch::{pipes, receive_terminal, terminal_socket};
use crate::link::sessions::Attend;
use crate::reconcile::on_host::OnHost;

/// How long a one-off may take from its session to its start: its image may have to be fetched.
const START_WAIT_MAX: Duration = Duration::from_secs(600);
/// How long the last frames may take to leave.
const FLUSH_MAX: Duration = Duration::from_secs(10);
const SIGHUP: u8 = 1;
const SIGKILL: u8 = 9;

/// Serves attached sessions.
pub struct Commands {
    machine: Arc<OnHost>,
}

impl Commands {
    /// Over this host.
    pub fn new(machine: Arc<OnHost>) -> Self {
        Self { machine }
    }

    async fn attach(
        &self,
        id: InstanceId,
        read: impl AsyncRead + Unpin,
        outgoing: Outgoing,
    ) -> Result<(), AttachFailure> {
        let attachments = &self.machine.attachments;
        let mut stage = attachments.watch(id);
        let waited = tokio::time::timeout(START_WAIT_MAX, stage.wait_for(|now| *now != Stage::Waiting)).await;
        let reached = waited.ok().and_then(|stage| Some(stage.ok()?.clone()));
        match reached {
            Some(Stage::Failed(failure)) => return Err(failure),
            Some(Stage::Started | Stage::Ended(_)) => {}
            Some(Stage::Waiting) | None => {
                attachments.forget(id);
                return Err(failed(Code::R20, "the host did not start the command in time"));
            }
        }
        let streams = attachments
            .take(id)
            .ok_or_else(|| failed(Code::A15, "somebody else is attached to this command already"))?;
        let _ = outgoing.send(Frame::Started).await;
        let one_off = OneOff { host: &self.machine.host, id, stage };
        if pump(read, outgoing, streams, &one_off).await == Ending::Lost {
            hang_up(&one_off, &format!("instance {id}")).await;
        }
        Ok(())
    }

    async fn exec(
        &self,
        asked: Asked,
        read: impl AsyncRead + Unpin,
        outgoing: Outgoing,
    ) -> Result<(), AttachFailure> {
        let local =
            |error: std::io::Error| failed(Code::R20, format!("the streams could not be made: {error}"));
        let (executed, streams) = match asked.terminal {
            None => {
                let (outer, inner) = pipes().map_err(local)?;
                let executed = self.start(&asked, Output::Pipes(inner)).await?;
                (executed, Streams::of_pipes(outer).map_err(local)?)
            }
            Some(size) => {
                let (outer, socket) = terminal_socket().map_err(local)?;
                let executed = self.start(&asked, Output::Terminal { socket, size }).await?;
                (executed, Streams::Terminal(receive_terminal(&outer).map_err(local)?))
            }
        };
        let _ = outgoing.send(Frame::Started).await;
        if pump(read, outgoing, streams, &executed).await == Ending::Lost {
            hang_up(&executed, &format!("a command in instance {}", asked.instance)).await;
        }
        Ok(())
    }

    async fn start(&self, asked: &Asked, output: Output) -> Result<Executed, AttachFailure> {
        let spec = self
            .machine
            .exec_spec(asked.instance, asked.argv.clone(), &asked.env, output)
            .map_err(|Trouble { code, message, .. }| failed(code, message))?;
        Ok(self.machine.host.exec(spec).await?)
    }
}

impl Attend for Commands {
    async fn attend<C>(&self, request: SessionRequest, connection: C)
    where
        C: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, outgoing, writer) = split(connection);
        let last = outgoing.clone();
        let done = match request {
            SessionRequest::Attach { instance } => self.attach(instance, read, outgoing).await,
            SessionRequest::Exec { instance, argv, env, terminal } => {
                self.exec(Asked { instance, argv, env, terminal }, read, outgoing).await
            }
            SessionRequest::Logs { .. } | SessionRequest::Metrics => return,
        };
        if let Err(failure) = done {
            let _ = last.send(Frame::Failed(failure)).await;
        }
        drop(last);
        let _ = tokio::time::timeout(FLUSH_MAX, writer).await;
    }
}

/// A further command, as it was asked for.
struct Asked {
    instance: InstanceId,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    terminal: Option<TerminalSize>,
}

fn failed(code: Code, message: impl Into<String>) -> AttachFailure {
    AttachFailure { code, message: message.into(), status: None }
}

impl From<StartError> for AttachFailure {
    fn from(error: StartError) -> Self {
        Self { code: error.code, message: error.message, status: error.status }
    }
}

/// Nobody is attached any more: SIGHUP, as from a terminal that is closed, and SIGKILL for what ignores it.
async fn hang_up(target: &impl Target, what: &str) {
    tracing::info!(what, "the connection to an attached command was lost; it gets SIGHUP");
    target.signal(SIGHUP).await;
    if tokio::time::timeout(HANGUP_GRACE, target.ended()).await.is_err() {
        target.signal(SIGKILL).await;
    }
}

/// The main process of a one-off.
struct OneOff<'a> {
    host: &'a Host,
    id: InstanceId,
    stage: watch::Receiver<Stage>,
}

impl Target for OneOff<'_> {
    async fn signal(&self, number: u8) {
        let sent = match number {
            SIGKILL => self.host.launcher.kill(self.id).await,
            _ => self.host.launcher.signal(self.id, number).await,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, instance = %self.id, number, "a signal was not passed on");
        }
    }

    async fn ended(&self) -> Exit {
        let mut stage = self.stage.clone();
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Ended(_))).await;
        match ended.as_deref() {
            Ok(Stage::Ended(exit)) => *exit,
            // The instance was removed: whatever ended it told nobody.
            _ => Exit::Unknown,
        }
    }
}

impl Target for Executed {
    async fn signal(&self, number: u8) {
        if let Err(error) = self.process.signal(number) {
            tracing::debug!(%error, number, "a signal was not passed on");
        }
    }

    async fn ended(&self) -> Exit {
        self.wait().await
    }
}

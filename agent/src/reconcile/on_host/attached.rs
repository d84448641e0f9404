//! Commands that somebody is attached to: one-offs with streams of their own instead of a log, and further commands in
//! instances that run.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use berth_wire::attach::AttachFailure;
use berth_wire::code::Code;
use berth_wire::id::InstanceId;
use berth_wire::report::Trouble;
use berth_wire::spec::{Attached, InstanceSpec, ProcessSpec};

use super::{Found, OnHost, process_of, trouble};
use crate::attach::attachments::Attachments;
use crate::attach::{HANGUP_GRACE, Streams};
use crate::container::{ExecSpec, Host, Output, StartError, Started};
use crate::launch::{pipes, receive_terminal, terminal_socket};

/// How long a one-off waits for the session that was opened together with it.
const ATTACH_WITHIN: Duration = Duration::from_secs(60);

const SIGHUP: u8 = 1;

impl OnHost {
    /// A further command in an instance, as its own command is: same environment, directory, user and capabilities.
    ///
    /// # Errors
    /// R25: the instance does not run here.
    pub fn exec_spec(
        &self,
        id: InstanceId,
        argv: Vec<String>,
        env: &BTreeMap<String, String>,
        output: Output,
    ) -> Result<ExecSpec, Trouble> {
        let spec = self.specs.borrow().clone();
        let spec = spec.as_ref().and_then(|spec| spec.instances.iter().find(|one| one.id == id));
        let image = self.leases.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        let (Some(spec), Some(image)) = (spec, image) else {
            return Err(trouble(Code::R25, "it is not running on its host any more".to_owned()));
        };
        let process = process_of(&spec.work)
            .ok_or_else(|| trouble(Code::R25, "a build is not an instance to run commands in".to_owned()))?;
        let container = self.container(spec, process, &image, output)?;
        let mut all = container.env;
        all.extend(env.clone());
        Ok(ExecSpec {
            id,
            argv,
            env: all,
            cwd: container.cwd,
            user: container.user,
            quota: container.quota,
            capabilities: container.capabilities,
            output: container.output,
        })
    }

    pub(super) async fn launch(
        &self,
        spec: &InstanceSpec,
        process: &ProcessSpec,
        output: Output,
    ) -> Result<Started, StartError> {
        let named = |Trouble { code, message, .. }| StartError { code, message, status: None };
        let image = self.fetch(spec.id, &process.image).await.map_err(named)?;
        let container = self.container(spec, process, &image, output).map_err(named)?;
        let _permit = self.launches.acquire().await;
        self.host.start(container).await
    }

    /// Starts a one-off that somebody is to be attached to, and says how it went to whoever waits for it.
    pub(super) async fn start_attached(
        &self,
        spec: &InstanceSpec,
        process: &ProcessSpec,
        attached: Attached,
    ) -> Result<Started, StartError> {
        match self.start_with_streams(spec, process, attached).await {
            Ok((started, streams)) => {
                self.attachments.started(spec.id, streams);
                tokio::spawn(end_unattended(self.host.clone(), self.attachments.clone(), spec.id));
                Ok(started)
            }
            Err(error) => {
                let StartError { code, message, status } = &error;
                let failure = AttachFailure { code: *code, message: message.clone(), status: *status };
                self.attachments.failed(spec.id, failure);
                Err(error)
            }
        }
    }

    async fn start_with_streams(
        &self,
        spec: &InstanceSpec,
        process: &ProcessSpec,
        attached: Attached,
    ) -> Result<(Started, Streams), StartError> {
        let local = |error: std::io::Error| StartError {
            code: Code::R20,
            message: format!("its streams could not be made: {error}"),
            status: None,
        };
        match attached.terminal {
            None => {
                let (outer, inner) = pipes().map_err(local)?;
                let started = self.launch(spec, process, Output::Pipes(inner)).await?;
                Ok((started, Streams::of_pipes(outer).map_err(local)?))
            }
            Some(size) => {
                let (outer, socket) = terminal_socket().map_err(local)?;
                let started = self.launch(spec, process, Output::Terminal { socket, size }).await?;
                Ok((started, Streams::Terminal(receive_terminal(&outer).map_err(local)?)))
            }
        }
    }

    /// Attached one-offs of an agent that is gone: their streams went with it, and nobody can be attached to them again.
    pub(super) fn hang_up_orphans(&self, found: &[Found]) {
        let spec = self.specs.borrow().clone();
        let attached = |id| {
            let one = spec.iter().flat_map(|spec| &spec.instances).find(|one| one.id == id);
            one.and_then(|one| process_of(&one.work)).is_some_and(|process| process.attached.is_some())
        };
        for orphan in found.iter().filter(|f| f.process.is_some() && f.exit.is_none() && attached(f.id)) {
            let (host, id) = (self.host.clone(), orphan.id);
            tokio::spawn(async move {
                let _ = host.launcher.signal(id, SIGHUP).await;
                if tokio::time::timeout(HANGUP_GRACE, host.wait(id)).await.is_err() {
                    let _ = host.launcher.kill(id).await;
                }
            });
        }
    }
}

/// One whose session never came must not run on: nobody reads what it writes.
async fn end_unattended(host: Arc<Host>, attachments: Attachments, id: InstanceId) {
    tokio::time::sleep(ATTACH_WITHIN).await;
    if attachments.take(id).is_some() {
        tracing::info!(instance = %id, "nobody came to attach to the command; it is ended");
        let _ = host.launcher.kill(id).await;
    }
}

//! A further command in a running container.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::id::{ExecId, InstanceId};
use berth_wire::launch::{Command, Event, Exec, Plan};
use berth_wire::quota::Quota;
use berth_wire::report::Exit;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;

use super::start::{give_streams, launch_error, standard};
use super::{Capabilities, Host, Output, StartError};
use crate::bundle::{self, inside};
use crate::launch::{LaunchError, Parcel, Process, sealed_file, seccomp_file, security_label};

/// The launcher tells how a command ended at the moment it reaps it. Without that for this long, there is no launcher any more
/// that could know.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// A command to start in a running container. All but the first field are as in [`super::ContainerSpec`], and as they are
/// there.
#[derive(Debug)]
pub struct ExecSpec {
    /// In which container.
    pub id: InstanceId,
    /// Argument vector.
    pub argv: Vec<String>,
    /// The whole environment. May hold secrets: never logged.
    pub env: BTreeMap<String, String>,
    /// Working directory inside.
    pub cwd: String,
    /// User and group id inside.
    pub user: (u32, u32),
    /// What the container may use.
    pub quota: Quota,
    /// Which capabilities it has.
    pub capabilities: Capabilities,
    /// Where its streams lead.
    pub output: Output,
}

/// A command that runs.
#[derive(Debug)]
pub struct Executed {
    /// Its process.
    pub process: Process,
    told: watch::Receiver<Option<Exit>>,
}

impl Executed {
    /// How it ended, once it has. Unknown if a launcher that died meanwhile was its parent.
    pub async fn wait(&self) -> Exit {
        let mut told = self.told.clone();
        let known = |exit: &Option<Exit>| exit.is_some();
        tokio::select! {
            exit = told.wait_for(known) => return exit.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown),
            _ = self.process.ended() => {}
        }
        let exit = tokio::time::timeout(TOLD_WITHIN, told.wait_for(known)).await;
        exit.ok().and_then(Result::ok).and_then(|exit| *exit).unwrap_or(Exit::Unknown)
    }
}

impl Host {
    /// Starts a further command in a running container.
    ///
    /// # Errors
    /// R25 if the container does not run, R19 if the command cannot be executed, R20 for anything else.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Executed, StartError> {
        self.exec_with(spec, |plan| plan).await
    }

    /// As [`Host::exec`], with a last look at the plan: the tests of isolation take steps out and see attacks succeed.
    ///
    /// # Errors
    /// As [`Host::exec`].
    pub async fn exec_with(
        &self,
        spec: ExecSpec,
        adjust: impl FnOnce(Plan) -> Plan + Send,
    ) -> Result<Executed, StartError> {
        let id = spec.id;
        let named = launch_error(id, &spec.argv, &spec.cwd);
        let command = Command::new(&spec.argv, &spec.env).map_err(StartError::bad_command)?;
        let child = self.launcher.status(id).await.map_err(StartError::failed)?;
        let child = child.ok_or_else(|| not_running(id))?;
        let exec = ExecId(uuid::Uuid::now_v7());
        let (request, parcel) = self
            .pack_exec(exec, spec, child.uid_base, &command, adjust)
            .map_err(|error| StartError::failed(format!("prepare: {error}")))?;
        // Subscribed before it starts: an end that comes at once is not missed.
        let events = self.launcher.events();
        let pidfd = self.launcher.exec(request, &parcel).await.map_err(|error| match error {
            LaunchError::Refused(failure) if failure.errno == libc::ESRCH && !failure.executing => {
                not_running(id)
            }
            other => named(other),
        })?;
        let process = Process::new(pidfd).map_err(StartError::failed)?;
        let (tell, told) = watch::channel(None);
        tokio::spawn(listen(events, exec, tell));
        Ok(Executed { process, told })
    }

    fn pack_exec(
        &self,
        exec: ExecId,
        spec: ExecSpec,
        uid_base: u32,
        command: &Command,
        adjust: impl FnOnce(Plan) -> Plan,
    ) -> io::Result<(Exec, Parcel)> {
        let mut parcel = Parcel::default();
        let group = self.cgroups.get(spec.id).map_err(io::Error::other)?;
        let group = group.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        let handles = group.handles().map_err(io::Error::other)?;
        let cgroup = parcel.pack(handles.unified)?;
        let legacy = handles.legacy.into_iter().map(|procs| parcel.pack(procs)).collect::<io::Result<_>>()?;
        give_streams(&spec.output, uid_base, spec.user)?;
        let (standard, _) = standard(spec.output, &mut parcel)?;
        let input = bundle::Input {
            capabilities: spec.capabilities.numbers(),
            user: spec.user,
            quota: spec.quota,
            legacy_cgroups: legacy,
            label: security_label(),
            seccomp: parcel.pack(seccomp_file()?)?,
            standard,
            cwd: spec.cwd,
            command: parcel.pack(sealed_file(c"berth-command", command.as_bytes())?)?,
            ..bundle::Input::inside(uid_base)
        };
        // The launcher adds the pidfd of the container's init after all that is packed here, the plan last.
        let process = parcel.next_but_one();
        let plan = adjust(inside::plan(&input, process));
        let plan = parcel.pack(sealed_file(c"berth-plan", &serde_json::to_vec(&plan)?)?)?;
        Ok((Exec { id: spec.id, exec, plan, cgroup: Some(cgroup) }, parcel))
    }
}

fn not_running(id: InstanceId) -> StartError {
    StartError { code: Code::R25, message: format!("container {id} is not running"), status: None }
}

/// Until its end was told. Ends with the launcher's client at the latest.
async fn listen(mut events: Receiver<Event>, exec: ExecId, tell: watch::Sender<Option<Exit>>) {
    loop {
        match events.recv().await {
            Ok(Event::ExecEnded { exec: ended, exit }) if ended == exec => {
                tell.send_replace(Some(exit));
                return;
            }
            Err(RecvError::Closed) => return,
            // A lag may have swallowed it: then the process's own end is all that is known.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
        }
        if tell.is_closed() {
            return;
        }
    }
}

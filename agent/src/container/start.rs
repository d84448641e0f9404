//! Starting a container: every part is made, the plan is folded, the launcher carries it out.

use std::io;
use std::path::Path;

use berth_wire::code::Code;
use berth_wire::id::InstanceId;
use berth_wire::launch::{
    Child, ChildState, Command, FdIndex, LAYERS_MAX, Launch, LaunchFailure, OutputFile, Plan, Stream,
};

use super::parts::Parts;
use super::steps::Steps;
use super::{ContainerSpec, Host, Output, StartError, Started, identity};
use crate::bundle::{self, BindTree, Standard};
use crate::disk::DiskError;
use crate::launch::{
    InnerPipes, LaunchError, NOT_LOADED, Parcel, give_to, processors, sealed_file, seccomp_file,
    security_label, tree,
};

/// What a shell exits with (POSIX.1-2024, Shell Command Language, 2.8.2).
const NOT_FOUND: u8 = 127;
const CANNOT_EXECUTE: u8 = 126;

impl Host {
    /// Makes every part and starts the process. On an error nothing of it is left.
    ///
    /// # Errors
    /// A code and a sentence.
    pub async fn start(&self, spec: ContainerSpec) -> Result<Started, StartError> {
        self.start_with(spec, |plan| plan).await
    }

    /// As [`Host::start`], with a last look at the plan: the tests of isolation take steps out and see attacks succeed.
    ///
    /// # Errors
    /// A code and a sentence.
    pub async fn start_with(
        &self,
        spec: ContainerSpec,
        adjust: impl FnOnce(Plan) -> Plan + Send,
    ) -> Result<Started, StartError> {
        let (id, mut steps) = (spec.id, Steps::begin());
        let _busy = self.ready.busy();
        self.make_way(id).await?;
        steps.done("make way for it");
        let started = match self.parts_for(&spec, &mut steps).await {
            Ok(parts) => self.launch(spec, parts, adjust, steps).await,
            Err(error) => Err(error),
        };
        if started.is_err()
            && let Err(error) = self.destroy(id, true).await
        {
            tracing::warn!(instance = %id, %error, "parts of a container that did not start are left");
        }
        started
    }

    /// An earlier run of the same instance is forgotten if it ended; one that is alive is left alone.
    async fn make_way(&self, id: InstanceId) -> Result<(), StartError> {
        // Most have no earlier run. One that the launcher alone remembers is refused by it, and removed then.
        if self.disk.get(id).is_none() && self.cgroups.get(id).is_ok_and(|group| group.is_none()) {
            return Ok(());
        }
        match self.launcher.status(id).await.map_err(StartError::failed)? {
            None => Ok(()),
            Some(Child { state: ChildState::Exited(_), .. }) => {
                self.destroy(id, true).await.map_err(StartError::failed)
            }
            Some(_) => Err(StartError::failed(format!("container {id} runs already; stop it first"))),
        }
    }

    async fn launch(
        &self,
        spec: ContainerSpec,
        parts: Parts,
        adjust: impl FnOnce(Plan) -> Plan + Send,
        mut steps: Steps,
    ) -> Result<Started, StartError> {
        let endpoint = parts.endpoint.clone();
        let command = Command::new(&spec.argv, &spec.env).map_err(StartError::bad_command)?;
        if spec.cwd.contains('\0') {
            let message = format!("working directory {:?} contains a NUL byte; remove it", spec.cwd);
            return Err(StartError { code: Code::R19, message, status: None });
        }
        let (id, named) = (spec.id, launch_error(spec.id, &spec.argv, &spec.cwd));
        let space = parts.scratch.dir.clone();
        let (launch, parcel) =
            pack(spec, parts, command, adjust).map_err(|error| prepare_error(&space, &error))?;
        steps.done("fold and pack the plan");
        let pid = match self.launcher.launch(launch, &parcel).await {
            Err(LaunchError::Disconnected { path, reason }) => self
                .launched_all_the_same(id)
                .await
                .ok_or_else(|| named(LaunchError::Disconnected { path, reason }))?,
            launched => launched.map_err(named)?,
        };
        steps.done("carry it out");
        Ok(Started { endpoint, pid, steps: steps.all() })
    }

    /// A launcher that died after it had cloned and written it down: the container goes on, and the next launcher knows it.
    async fn launched_all_the_same(&self, id: InstanceId) -> Option<u32> {
        let known = self.launcher.status(id).await.ok().flatten()?;
        (!matches!(known.state, ChildState::Exited(_))).then_some(known.pid)
    }
}

/// Packs descriptors and folds the plan over their numbers.
fn pack(
    spec: ContainerSpec,
    parts: Parts,
    command: Command,
    adjust: impl FnOnce(Plan) -> Plan,
) -> io::Result<(Launch, Parcel)> {
    let mut parcel = Parcel::default();
    let handles = parts.cgroup.handles().map_err(io::Error::other)?;
    let cgroup = parcel.pack(handles.unified)?;
    let identity = identity::write(&parts.scratch.dir, &spec.hostname, parts.endpoint.as_ref())?;
    if spec.layers.len() >= LAYERS_MAX {
        let message = format!("the image has {} layers; {} is the most", spec.layers.len(), LAYERS_MAX - 1);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut trees = |paths: &mut dyn Iterator<Item = &Path>| -> io::Result<Vec<FdIndex>> {
        paths.map(|path| parcel.pack(tree(path)?)).collect()
    };
    let layers = trees(&mut spec.layers.iter().map(std::path::PathBuf::as_path).chain([identity.as_path()]))?;
    let scratch = trees(&mut [parts.scratch.dir.as_path()].into_iter())?[0];
    let binds = trees(&mut spec.binds.iter().map(|bind| bind.source.as_path()))?;
    let legacy = handles.legacy.into_iter().map(|procs| parcel.pack(procs)).collect::<io::Result<_>>()?;
    give_streams(&spec.output, parts.uid_base, spec.user)?;
    let (standard, output) = standard(spec.output, &mut parcel)?;
    let input = bundle::Input {
        hostname: spec.hostname,
        uid_base: parts.uid_base,
        user: spec.user,
        quota: spec.quota,
        capabilities: spec.capabilities.numbers(),
        user_namespace: parcel.pack(parts.namespaces.user)?,
        network_namespace: parcel.pack(parts.namespaces.network)?,
        legacy_cgroups: legacy,
        layers,
        scratch,
        binds: binds
            .into_iter()
            .zip(spec.binds)
            .map(|(tree, bind)| BindTree {
                tree,
                path: bind.target.to_string_lossy().into_owned(),
                read_only: bind.read_only,
            })
            .collect(),
        processors: processors(),
        label: security_label(),
        seccomp: parcel.pack(seccomp_file()?)?,
        standard,
        cwd: spec.cwd,
        command: parcel.pack(sealed_file(c"berth-command", command.as_bytes())?)?,
    };
    let plan = adjust(bundle::plan(&input));
    let plan = parcel.pack(sealed_file(c"berth-plan", &serde_json::to_vec(&plan)?)?)?;
    // The last one: see the message.
    let parked = parts.parked.map(|parked| parcel.pack(parked.into_socket())).transpose()?;
    let (id, uid_base) = (spec.id, parts.uid_base);
    Ok((Launch { id, plan, cgroup: Some(cgroup), parked, uid_base, output }, parcel))
}

/// Pipes belong to whom they are for, so that the command can open /dev/stdout again.
pub(super) fn give_streams(output: &Output, uid_base: u32, (user, group): (u32, u32)) -> io::Result<()> {
    let Output::Pipes(pipes) = output else { return Ok(()) };
    [&pipes.stdin, &pipes.stdout, &pipes.stderr]
        .into_iter()
        .try_for_each(|pipe| give_to(pipe, uid_base + user, uid_base + group))
}

pub(super) fn standard(output: Output, parcel: &mut Parcel) -> io::Result<(Standard, Option<OutputFile>)> {
    let mut descriptor = |fd| parcel.pack(fd).map(Stream::Descriptor);
    Ok(match output {
        Output::File { path, bytes_max, lines_per_second } => {
            let path = path.to_string_lossy().into_owned();
            let file = OutputFile { path, bytes_max, lines_per_second };
            (Standard::Streams([Stream::Null, Stream::Output, Stream::Output]), Some(file))
        }
        Output::Fds { stdin, stdout, stderr } => {
            let stdin = stdin.map_or(Ok(Stream::Null), &mut descriptor)?;
            (Standard::Streams([stdin, descriptor(stdout)?, descriptor(stderr)?]), None)
        }
        Output::Pipes(InnerPipes { stdin, stdout, stderr }) => {
            (Standard::Streams([descriptor(stdin)?, descriptor(stdout)?, descriptor(stderr)?]), None)
        }
        Output::Terminal { socket, size } => {
            (Standard::Terminal { socket: parcel.pack(socket)?, size }, None)
        }
    })
}

impl StartError {
    pub(super) fn failed(reason: impl std::fmt::Display) -> Self {
        Self { code: Code::R20, message: reason.to_string(), status: None }
    }

    pub(super) fn bad_command(reason: impl std::fmt::Display) -> Self {
        Self { code: Code::R19, message: reason.to_string(), status: Some(CANNOT_EXECUTE) }
    }
}

pub(super) fn disk(error: DiskError) -> StartError {
    let full = matches!(error, DiskError::PoolFull(_) | DiskError::HostFull { .. });
    StartError { code: if full { Code::D13 } else { Code::R20 }, message: error.to_string(), status: None }
}

/// What a container's own space has no room for is the pool's matter, not the container's.
fn prepare_error(space: &Path, error: &io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            disk(DiskError::PoolFull(space.to_owned()))
        }
        _ => StartError::failed(format!("prepare: {error}")),
    }
}

/// Puts the launcher's failure into words, blaming the command where it is to blame.
pub(super) fn launch_error(
    id: InstanceId,
    argv: &[String],
    cwd: &str,
) -> impl FnOnce(LaunchError) -> StartError + use<> {
    let (program, cwd) = (argv.first().cloned().unwrap_or_default(), cwd.to_owned());
    move |error| match error {
        LaunchError::Refused(failure) => name_failure(id, &program, &cwd, &failure),
        other => StartError::failed(other),
    }
}

fn name_failure(id: InstanceId, program: &str, cwd: &str, failure: &LaunchFailure) -> StartError {
    let reason = io::Error::from_raw_os_error(failure.errno);
    if failure.executing {
        let message = match failure.errno {
            libc::ENOENT => format!("{program}: not found in the image, nor along its PATH"),
            libc::EACCES => format!("{program}: not executable; set its execute permission"),
            libc::ENOEXEC => {
                format!("{program}: not a program for this machine, nor a script that starts with #!")
            }
            _ => format!("{program}: {reason}"),
        };
        let status = Some(if failure.errno == libc::ENOENT { NOT_FOUND } else { CANNOT_EXECUTE });
        return StartError { code: Code::R19, message, status };
    }
    if failure.step == format!("change to {cwd}") {
        return StartError::bad_command(format!("working directory {cwd}: {reason}"));
    }
    if failure.step.starts_with("enter the AppArmor profile") && failure.errno == libc::ENOENT {
        return StartError::failed(format!("container {id} could not be launched: {NOT_LOADED}"));
    }
    let code = if matches!(failure.errno, libc::ENOSPC | libc::EDQUOT) { Code::D13 } else { Code::R20 };
    StartError { code, message: format!("container {id} could not be launched: {failure}"), status: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(executing: bool, step: &str, errno: i32) -> StartError {
        let failure = LaunchFailure { step: step.into(), executing, errno };
        name_failure(InstanceId(uuid::Uuid::nil()), "gunicorn", "/app", &failure)
    }

    #[test]
    fn a_missing_program_must_be_blamed_on_the_image() {
        let error = named(true, "execute the command", libc::ENOENT);
        assert_eq!((error.code, error.message.contains("gunicorn: not found")), (Code::R19, true));
        assert_eq!(named(false, "change to /app", libc::ENOENT).code, Code::R19);
    }

    #[test]
    fn a_full_pool_must_be_named_as_such() {
        let error = prepare_error(Path::new("/pool"), &io::ErrorKind::StorageFull.into());
        assert_eq!(error.code, Code::D13);
        assert!(error.message.contains("pool_bytes"), "{}", error.message);
        assert_eq!(named(false, "mount the root", libc::ENOSPC).code, Code::D13);
        assert_eq!(prepare_error(Path::new("/pool"), &io::ErrorKind::NotFound.into()).code, Code::R20);
    }

    #[test]
    fn a_policy_that_is_not_loaded_must_be_said_to_be() {
        let error = named(false, "enter the AppArmor profile berth-container", libc::ENOENT);
        assert!(error.message.contains("apparmor_parser"), "{}", error.message);
        assert!(!named(false, "enter the user namespace", libc::EINVAL).message.contains("apparmor_parser"));
    }

    #[test]
    fn a_refused_mount_must_be_blamed_on_the_platform() {
        let error = named(false, "mask /proc/kcore", libc::ELOOP);
        assert_eq!(error.code, Code::R20);
        assert!(error.message.contains("mask /proc/kcore"), "{}", error.message);
    }
}

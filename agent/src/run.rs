//! `berth-agent run ROOT -- COMMAND`: one container, attached, with everything that an app's has, from any image or root. It is an
//! installation of its own with its own launcher, so it needs no agent and disturbs none; nothing of it is left afterwards.
//!
//! Exit status: the command's own; 128 + N if signal N ended it; 126 or 127 if it could not be executed; 125 for anything else.

mod arguments;
mod root;
mod terminal;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use berth_wire::id::InstanceId;
use berth_wire::quota::{MIB, Quota};
use berth_wire::report::Exit;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cgroup::{self, Cgroups, IoDevice};
use crate::container::{Capabilities, ContainerSpec, Host, Output, Ready, StartError};
use crate::disk::Disk;
use crate::disk::shares::Shares;
use crate::image::{Images, ImagesConfig, configuration};
use crate::installation::Installation;
use crate::launch::{Launcher, UidRanges, load_security_policy};
use crate::network::{Network, NetworkConfig};
pub use arguments::{Arguments, QuotaArguments};

/// What went wrong before or after the command.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("{action}: {reason}")]
    Step { action: &'static str, reason: String },
    #[error("{}: {}", .0.code, .0)]
    Start(StartError),
    #[error("{0}")]
    Quota(#[from] berth_wire::quota::InvalidQuota),
}

fn step<E: std::fmt::Display>(action: &'static str) -> impl FnOnce(E) -> RunError {
    move |error| RunError::Step { action, reason: error.to_string() }
}

/// How long what a terminal still shows may take once the command has ended.
const REST_MAX: Duration = Duration::from_secs(2);

/// Runs the command; the exit status is described in the module's header.
pub async fn run(arguments: Arguments) -> ExitCode {
    match attached(arguments).await {
        Ok(Exit::Code(code)) => ExitCode::from(code),
        Ok(Exit::Signal(signal)) => ExitCode::from(128_u8.saturating_add(signal)),
        Ok(Exit::OutOfMemory) => {
            eprintln!("berth-agent: R14: the container ran out of memory");
            ExitCode::from(137)
        }
        Ok(Exit::TimedOut | Exit::Unknown) => ExitCode::from(125),
        Err(error) => {
            eprintln!("berth-agent: {error}");
            ExitCode::from(match &error {
                RunError::Start(StartError { status: Some(status), .. }) => *status,
                _ => 125,
            })
        }
    }
}

async fn attached(arguments: Arguments) -> Result<Exit, RunError> {
    let quota = arguments.limits.quota();
    quota.check()?;
    say_what_is_not_enforced(&quota);
    // Before anything is made: a signal that comes meanwhile must not leave half of it behind.
    let signals = signals().map_err(step("listen for signals"))?;
    let name = format!("run-{}", std::process::id());
    let work = arguments.work_dir.join(format!("berth-{name}"));
    std::fs::create_dir_all(&work).map_err(step("make the working directory"))?;
    let pool_bytes = quota.disk_bytes.max.saturating_add(arguments.image_mib.saturating_mul(MIB));
    let opened = open_host(&name, &work, pool_bytes).await;
    let result = match opened {
        Ok((host, launcher)) => {
            let result = one(&host, arguments, quota, signals).await;
            close(host, launcher).await;
            result
        }
        Err(error) => Err(error),
    };
    let _ = std::fs::remove_dir_all(&work);
    result
}

/// What was asked for and cannot be had on this machine is said, not silently left out.
fn say_what_is_not_enforced(quota: &Quota) {
    let unenforced = cgroup::unenforced().unwrap_or_default();
    for (field, reason) in unenforced.iter().filter(|(field, _)| quota.stated().contains(&field.as_str())) {
        eprintln!("berth-agent: {field} is not enforced: {reason}");
    }
}

/// A launcher of our own; it ends with us.
struct OwnLauncher(Child);

impl Drop for OwnLauncher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_launcher(dir: &Path) -> io::Result<OwnLauncher> {
    let beside = std::env::current_exe()?.with_file_name("berth-launcher");
    let program = if beside.exists() { beside } else { PathBuf::from("berth-launcher") };
    // A process group of its own: what a terminal or timeout(1) sends to the whole group is for the command, not for the launcher.
    Command::new(&program).arg("--dir").arg(dir).process_group(0).spawn().map(OwnLauncher).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}; install it beside berth-agent", program.display()))
    })
}

async fn open_host(name: &str, work: &Path, pool_bytes: u64) -> Result<(Host, OwnLauncher), RunError> {
    let installation = Installation::new(name).map_err(step("claim an installation"))?;
    let launcher_dir = work.join("launcher");
    let process = start_launcher(&launcher_dir).map_err(step("start the launcher"))?;
    let cgroups = Cgroups::open(&installation).map_err(step("open the cgroups"))?;
    let network =
        Network::open(&installation, NetworkConfig::default()).await.map_err(step("open the network"))?;
    let disk = Disk::open(&installation, work, Shares::undivided(pool_bytes))
        .await
        .map_err(step("open the disk"))?;
    let (major, minor) = disk.device().map_err(step("find the disk's device"))?;
    cgroups.throttle(IoDevice { major, minor });
    let config = ImagesConfig {
        layers_dir: disk.layers_dir(),
        unpacker: std::env::current_exe().map_err(step("find this program"))?,
        bytes_max: u64::MAX,
    };
    let images = Images::open(&installation, config).await.map_err(step("open the image store"))?;
    let launcher = connect(&launcher_dir).await.map_err(step("reach the launcher"))?;
    load_security_policy().map_err(step("load the security policy"))?;
    let uids = UidRanges::new(installation.uid_block());
    Ok((
        Host { installation, cgroups, network, disk, images, launcher, uids, ready: Ready::default() },
        process,
    ))
}

/// The launcher was just started: its socket appears within milliseconds.
async fn connect(dir: &Path) -> Result<Launcher, crate::launch::LaunchError> {
    const ATTEMPTS: u32 = 200;
    let mut attempt = 0;
    loop {
        match Launcher::connect(dir).await {
            Err(_) if attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            other => return other,
        }
    }
}

async fn close(host: Host, launcher: OwnLauncher) {
    let problems = [
        host.network.close_down().await.err().map(|error| error.to_string()),
        host.cgroups.close_down().err().map(|error| error.to_string()),
        host.disk.close().await.err().map(|error| error.to_string()),
    ];
    for problem in problems.into_iter().flatten() {
        eprintln!("berth-agent: clean up: {problem}");
    }
    drop(launcher);
    if let Err(error) = host.installation.release() {
        eprintln!("berth-agent: clean up: {error}");
    }
}

async fn one(
    host: &Host,
    arguments: Arguments,
    quota: Quota,
    mut signals: mpsc::Receiver<u8>,
) -> Result<Exit, RunError> {
    let root = root::open(&host.images, &arguments).await?;
    let (json, (spec, ordered)) = (arguments.json, spec(arguments, &root, quota)?);
    let id = spec.id;
    let started = host.start(spec).await.map_err(RunError::Start)?;
    let joined = ordered.map(terminal::Ordered::join).transpose().map_err(step("join the terminals"));
    let exit = match joined {
        Ok(joined) => Ok(follow(host, id, &mut signals, joined).await),
        Err(error) => Err(error),
    };
    host.destroy(id, true).await.map_err(step("clean up"))?;
    let exit = exit?;
    if json {
        let told = serde_json::json!({ "exit": exit, "steps": started.steps });
        eprintln!("{told}");
    }
    Ok(exit)
}

/// Most bytes of a log; when it is full it is renamed to `.1`, once.
const LOG_BYTES_MAX: u64 = 64 * MIB;

/// What the command's streams are.
fn streams(arguments: &Arguments, quota: &Quota) -> io::Result<(Option<terminal::Ordered>, Output)> {
    if arguments.tty {
        let (ordered, output) = terminal::order()?;
        return Ok((Some(ordered), output));
    }
    if let Some(path) = &arguments.log {
        let lines_per_second = u32::try_from(quota.log_lines_per_second.max).unwrap_or(u32::MAX);
        let path = std::path::absolute(path)?;
        return Ok((None, Output::File { path, bytes_max: LOG_BYTES_MAX, lines_per_second }));
    }
    let copy = |stream: BorrowedFd<'_>| stream.try_clone_to_owned();
    let output = Output::Fds {
        stdin: Some(copy(io::stdin().as_fd())?),
        stdout: copy(io::stdout().as_fd())?,
        stderr: copy(io::stderr().as_fd())?,
    };
    Ok((None, output))
}

/// What the command line says, and what the image says where that is silent.
fn spec(
    arguments: Arguments,
    root: &root::Root,
    quota: Quota,
) -> Result<(ContainerSpec, Option<terminal::Ordered>), RunError> {
    let (ordered, output) = streams(&arguments, &quota).map_err(step("pass on the standard streams"))?;
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME".to_owned(), "/tmp".to_owned()),
    ]);
    env.extend(root.config.as_ref().map(configuration::env).unwrap_or_default());
    if let (true, Ok(kind)) = (arguments.tty, std::env::var("TERM")) {
        env.insert("TERM".to_owned(), kind);
    }
    env.extend(arguments.env);
    let own_argv = root.config.as_ref().map(configuration::argv).unwrap_or_default();
    let argv = if arguments.command.is_empty() { own_argv } else { arguments.command };
    if argv.is_empty() {
        return Err(step("find a command")("the image names none; write one after --"));
    }
    let user = match (arguments.user, &root.config) {
        (Some(user), _) => user,
        (None, Some(config)) => configuration::user(config)
            .map_err(|refusal| format!("{refusal}; say which with --user"))
            .map_err(step("find the user"))?,
        (None, None) => configuration::USER_DEFAULT,
    };
    let spec = ContainerSpec {
        id: InstanceId(uuid::Uuid::now_v7()),
        hostname: "berth-run".into(),
        layers: root.layers.clone(),
        argv,
        env,
        cwd: arguments
            .cwd
            .or_else(|| root.config.as_ref().map(configuration::cwd))
            .unwrap_or_else(|| "/".into()),
        user,
        quota,
        binds: vec![],
        output,
        capabilities: Capabilities::App,
        network: !arguments.no_network,
    };
    Ok((spec, ordered))
}

/// Until the command ends. A terminal's size is the terminal's matter; every other signal is the command's.
async fn follow(
    host: &Host,
    id: InstanceId,
    signals: &mut mpsc::Receiver<u8>,
    joined: Option<terminal::Joined>,
) -> Exit {
    let window = SignalKind::window_change().as_raw_value() as u8;
    let exit = loop {
        tokio::select! {
            exit = host.wait(id) => break exit,
            Some(number) = signals.recv() => match &joined {
                Some(joined) if number == window => joined.resize(),
                _ => drop(host.launcher.signal(id, number).await),
            },
        }
    };
    if let Some(joined) = joined {
        joined.finish().await;
    }
    exit
}

/// The signals that are passed on to the command.
fn signals() -> io::Result<mpsc::Receiver<u8>> {
    let kinds = [
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::terminate(),
        SignalKind::window_change(),
    ];
    // A person's or a supervisor's signals: a handful. One more than the command can be told of in time is dropped.
    let (sender, receiver) = mpsc::channel(16);
    for kind in kinds {
        let stream: Signal = signal(kind)?;
        tokio::spawn(pass_on(stream, kind.as_raw_value() as u8, sender.clone()));
    }
    Ok(receiver)
}

async fn pass_on(mut stream: Signal, number: u8, sender: mpsc::Sender<u8>) {
    while stream.recv().await.is_some() {
        let _ = sender.try_send(number);
    }
}

//! `berth-agent run ROOT -- COMMAND`: one container, attached, with everything that an app's has, from a directory or a tar. It is an
//! installation of its own with its own launcher, so it needs no agent and disturbs none; nothing of it is left afterwards.
//!
//! Exit status: the command's own; 128 + N if signal N ended it; 126 or 127 if it could not be executed; 125 for anything else.

mod terminal;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use berth_wire::id::InstanceId;
use berth_wire::quota::{Bounds, MIB, Quota};
use berth_wire::report::Exit;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cgroup::{Cgroups, IoDevice};
use crate::container::{Capabilities, ContainerSpec, Host, Output, Ready, StartError};
use crate::disk::Disk;
use crate::disk::shares::Shares;
use crate::image::{Images, ImagesConfig};
use crate::installation::Installation;
use crate::launch::{Launcher, UidRanges, load_security_policy};
use crate::network::{Network, NetworkConfig};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A directory that holds a root file system, or a tar of one.
    pub root: PathBuf,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
    /// User inside, as UID or UID:GID in numbers.
    #[arg(long, default_value = "1000", value_parser = user)]
    pub user: (u32, u32),
    /// Working directory inside.
    #[arg(long, visible_alias = "workdir", default_value = "/")]
    pub cwd: String,
    /// A terminal for the command, joined to this one.
    #[arg(short, long)]
    pub tty: bool,
    /// When it is over, write how it ended and how long each step of its start took to standard error, as one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// An environment variable, KEY=VALUE; may be repeated.
    #[arg(short, long, value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// CPU in thousandths of a core.
    #[arg(long, default_value_t = 1_000)]
    pub cpu_millis: u64,
    /// Memory in MiB.
    #[arg(long, default_value_t = 512)]
    pub memory_mib: u64,
    /// Processes and threads.
    #[arg(long, default_value_t = 256)]
    pub pids: u64,
    /// Bytes written to the root, in MiB.
    #[arg(long, default_value_t = 256)]
    pub disk_mib: u64,
    /// No network beyond the container's own loopback.
    #[arg(long)]
    pub no_network: bool,
    /// Where its working files are kept while it runs.
    #[arg(long, default_value = "/var/tmp")]
    pub work_dir: PathBuf,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Numbers only, as in an image: a name would have to be looked up in a file that the image controls.
fn user(text: &str) -> Result<(u32, u32), String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|number| plain && *number < 65_535)
    };
    number(uid).zip(number(gid)).ok_or_else(|| "write UID or UID:GID in numbers below 65535".to_owned())
}

/// What went wrong before or after the command.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("{action}: {reason}")]
    Step { action: &'static str, reason: String },
    #[error(transparent)]
    Start(#[from] StartError),
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
    let quota = quota(&arguments);
    quota.check()?;
    // Before anything is made: a signal that comes meanwhile must not leave half of it behind.
    let signals = signals().map_err(step("listen for signals"))?;
    let name = format!("run-{}", std::process::id());
    let work = arguments.work_dir.join(format!("berth-{name}"));
    std::fs::create_dir_all(&work).map_err(step("make the working directory"))?;
    let opened = open_host(&name, &work, quota.disk_bytes.max).await;
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

fn quota(arguments: &Arguments) -> Quota {
    Quota {
        cpu_millis: Bounds::new(0, arguments.cpu_millis),
        memory_bytes: Bounds::new(0, arguments.memory_mib * MIB),
        pids: Bounds::new(0, arguments.pids),
        disk_bytes: Bounds::new(0, arguments.disk_mib * MIB),
        ..Quota { log_lines_per_second: Bounds::new(0, 1_000), ..Quota::default() }
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

/// Room for layers of a tar and for btrfs itself, beside the container's own quota.
const POOL_BYTES_EXTRA: u64 = 2_048 * MIB;

async fn open_host(name: &str, work: &Path, disk_bytes: u64) -> Result<(Host, OwnLauncher), RunError> {
    let installation = Installation::new(name).map_err(step("claim an installation"))?;
    let launcher_dir = work.join("launcher");
    let process = start_launcher(&launcher_dir).map_err(step("start the launcher"))?;
    let cgroups = Cgroups::open(&installation).map_err(step("open the cgroups"))?;
    let network =
        Network::open(&installation, NetworkConfig::default()).await.map_err(step("open the network"))?;
    let disk = Disk::open(&installation, work, Shares::undivided(disk_bytes + POOL_BYTES_EXTRA))
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
    let id = InstanceId(uuid::Uuid::now_v7());
    let layer = if arguments.root.is_dir() {
        host.images.borrow_directory(&arguments.root).map_err(step("use the root directory"))?
    } else {
        let tar = tokio::fs::File::open(&arguments.root).await.map_err(step("open the root"))?;
        host.images.import_tar(tar).await.map_err(step("unpack the root"))?
    };
    let copy = |stream: std::os::fd::BorrowedFd<'_>| stream.try_clone_to_owned();
    let streams = || -> io::Result<(Option<terminal::Ordered>, Output)> {
        use std::os::fd::AsFd;
        if arguments.tty {
            let (ordered, output) = terminal::order()?;
            return Ok((Some(ordered), output));
        }
        let output = Output::Fds {
            stdin: Some(copy(io::stdin().as_fd())?),
            stdout: copy(io::stdout().as_fd())?,
            stderr: copy(io::stderr().as_fd())?,
        };
        Ok((None, output))
    };
    let (ordered, output) = streams().map_err(step("pass on the standard streams"))?;
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME".to_owned(), "/tmp".to_owned()),
    ]);
    if let (true, Ok(kind)) = (arguments.tty, std::env::var("TERM")) {
        env.insert("TERM".to_owned(), kind);
    }
    env.extend(arguments.env);
    let spec = ContainerSpec {
        id,
        hostname: "berth-run".into(),
        layers: vec![layer.path.clone()],
        argv: arguments.command,
        env,
        cwd: arguments.cwd,
        user: arguments.user,
        quota,
        binds: vec![],
        output,
        capabilities: Capabilities::App,
        network: !arguments.no_network,
    };
    let started = host.start(spec).await?;
    let joined = ordered.map(terminal::Ordered::join).transpose().map_err(step("join the terminals"));
    let exit = match joined {
        Ok(joined) => Ok(follow(host, id, &mut signals, joined).await),
        Err(error) => Err(error),
    };
    host.destroy(id, true).await.map_err(step("clean up"))?;
    let exit = exit?;
    if arguments.json {
        let told = serde_json::json!({ "exit": exit, "steps": started.steps });
        eprintln!("{told}");
    }
    Ok(exit)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_must_be_numbers() {
        assert_eq!(user("5"), Ok((5, 5)));
        assert_eq!(user("0:7"), Ok((0, 7)));
        for bad in ["", "root", "1:", ":1", "+1", "65535", "1:2:3", "4294967297"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }
}

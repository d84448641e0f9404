//! `berth-agent run ROOT -- COMMAND`: one container, attached, with everything that an app's has, from any image or root. It is an
//! installation of its own with its own launcher, so it needs no agent and disturbs none; nothing of it is left afterwards.
//!
//! Exit status: the command's own; 128 + N if signal N ended it; 126 or 127 if it could not be executed; 125 for anything else.

mod arguments;
mod own_host;
mod root;
mod terminal;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use berth_wire::id::InstanceId;
use berth_wire::quota::{MIB, Quota};
use berth_wire::report::Exit;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cgroup;
use crate::container::{Capabilities, ContainerSpec, Host, Output, StartError};
use crate::image::configuration;
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
    let result = match own_host::open(&name, &work, pool_bytes).await {
        Ok(own) => {
            let result = one(&own.host, arguments, quota, signals).await;
            own.close().await;
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

//! The agent as a daemon: opens every part in order, starts the loops, waits for the end. Decides nothing.
//!
//! Its end leaves containers, traffic and logs alone; the next one takes everything over.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use berth_wire::id::InstanceId;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::attach::commands::Commands;
use crate::build::Builder;
use crate::cgroup::{Cgroups, IoDevice};
use crate::config::{Config, IdleSwap};
use crate::container::{Host, READY_MAX, Ready};
use crate::disk::Disk;
use crate::disk::shares::Shares;
use crate::doctor::{self, Severity};
use crate::idle;
use crate::image::{Images, ImagesConfig, Registry};
use crate::installation::{Block, Installation};
use crate::journal::Journal;
use crate::launch::{Launcher, UidRanges, load_security_policy};
use crate::ledger::Ledger;
use crate::link::{client::Link, reports, sessions, specs};
use crate::logs::source::Places;
use crate::logs::trim;
use crate::metrics::{Metrics, server};
use crate::network::{Network, NetworkConfig};
use crate::reconcile::memory::Memories;
use crate::reconcile::on_host::{OnEdge, OnHost};
use crate::reconcile::{Reconciler, Snapshot};
use crate::routes::Routes;
use crate::sampling::{Samples, at_limits, out_of_memory};

/// How long the agent waits at start for a launcher that is being started, too.
const LAUNCHER_TRIES: u32 = 150;
/// Between two tries.
const LAUNCHER_PAUSE: Duration = Duration::from_millis(200);

/// How long the end of the agent may take to remove what was made ahead: some milliseconds each, far below what a supervisor allows.
const DISCARD_MAX: Duration = Duration::from_secs(3);

/// How often old logs and unused layers are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(600);

/// How often it is looked whether layers take more than they should: an import may fill what is left in so many seconds.
const LAYERS_EVERY: Duration = Duration::from_secs(10);

/// Why the agent could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The machine lacks something without which nothing works.
    #[error("this machine cannot run containers: {}; `berth-agent doctor` says more", .0.join("; "))]
    Machine(Vec<String>),
    /// Another agent has the data directory.
    #[error("another agent runs on {0}; stop it first, or give this one a data_dir of its own")]
    Taken(String),
    /// One part could not be opened.
    #[error("could not open {part}: {reason}")]
    Part {
        /// Which.
        part: &'static str,
        /// Why.
        reason: String,
    },
    /// One of the loops ended, which they never do by themselves.
    #[error("{0}")]
    Ended(String),
}

fn part<E: std::fmt::Display>(part: &'static str) -> impl FnOnce(E) -> ServeError {
    move |reason| ServeError::Part { part, reason: reason.to_string() }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// A part that could not be opened, or a loop that ended.
pub async fn serve(config: Config) -> Result<(), ServeError> {
    let warnings = examine()?;
    let _lock = lock(&config.data_dir)?;
    let ledger = Arc::new(Ledger::open(&config.data_dir, config.host_id).map_err(part("the ledger"))?);
    let journal = Arc::new(open_journal(&config.data_dir)?);
    let memories = Memories::open(&config.data_dir).map_err(part("what was remembered of instances"))?;
    let token = config.token().map_err(part("the host's token"))?;
    let metrics_token = config.metrics_token().map_err(part("the metrics token"))?;
    let listener = listen(&config).await?;
    let host = open_host(&config).await?;
    if config.idle.swap == IdleSwap::Zram {
        idle::set_up_swap(&host.installation).map_err(part("the compressed swap for idle instances"))?;
    }
    let routes = Routes::start(&config.edge_socket, &config.data_dir).map_err(part("the routes"))?;
    let link =
        Link::new(&config.control_plane, token.clone()).map_err(part("the link to the control plane"))?;
    let builder = Builder::new(
        host.clone(),
        &config.control_plane,
        token.clone(),
        config.build.clone(),
        &config.data_dir,
    )
    .map_err(part("the directory of builds"))?;
    let registry = Registry { base_url: config.control_plane.clone(), token };
    let logs = config.data_dir.join("logs");
    let log_places =
        Places { instances: logs.clone(), access: config.edge_socket.with_file_name("access.log") };

    let machine = Arc::new(OnHost::new(host.clone(), registry, logs.clone(), builder, ledger.subscribe()));
    let commands = Arc::new(Commands::new(machine.clone()));
    let edge = OnEdge::new(routes.clone());
    let reconciler = Reconciler::new(machine, edge, ledger.subscribe(), journal.clone(), memories);
    let snapshots = reconciler.subscribe();
    let samples = Arc::new(Samples::new(host.clone(), snapshots.clone(), routes.stats(), warnings));
    let metrics = Arc::new(Metrics {
        samples: samples.clone(),
        snapshots: snapshots.clone(),
        edge: routes.stats(),
        routes: routes.status(),
    });
    let limits = at_limits::tell(host.clone(), snapshots.clone(), journal.clone());
    let sources = reports::Sources {
        ledger: ledger.clone(),
        snapshots: snapshots.clone(),
        routes: routes.status(),
        journal,
        samples: samples.clone(),
    };
    server::announce(&listener, &config.data_dir.join("metrics.addr")).map_err(part("metrics.addr"))?;

    let served = metrics.clone();
    let mut loops = JoinSet::new();
    loops.spawn(async { reconciler.run().await.err() });
    loops.spawn(
        async move { server::serve(listener, served, metrics_token).await.err().map(|e| e.to_string()) },
    );
    spawn_endless(&mut loops, specs::follow(link.clone(), ledger));
    spawn_endless(&mut loops, reports::send(link.clone(), sources));
    spawn_endless(&mut loops, sessions::answer(link, log_places, metrics.clone(), commands));
    spawn_endless(&mut loops, samples.keep_taking());
    spawn_endless(&mut loops, limits);
    spawn_endless(&mut loops, out_of_memory::end_the_rest(host.clone(), snapshots.clone()));
    spawn_endless(&mut loops, host.disk.clone().keep_floors());
    spawn_endless(&mut loops, keep_tidy(host.clone(), logs.clone(), snapshots));
    spawn_endless(&mut loops, host.clone().keep_ready(READY_MAX));
    tracing::info!(installation = config.installation, host = %config.host_id, "the agent runs");
    let ended = until_told(&mut loops).await;
    loops.shutdown().await;
    // What time does not suffice for, the next agent removes.
    let _ = tokio::time::timeout(DISCARD_MAX, host.discard_ready()).await;
    ended
}

fn open_journal(data_dir: &Path) -> Result<Journal, ServeError> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Journal::open(data_dir, boot.trim()).map_err(part("the journal"))
}

async fn listen(config: &Config) -> Result<TcpListener, ServeError> {
    let address = config.metrics_listen;
    let refused = |e: std::io::Error| ServeError::Part {
        part: "metrics_listen",
        reason: format!("{address}: {e} (D12)"),
    };
    TcpListener::bind(address).await.map_err(refused)
}

/// Looks at the machine; what is fatal ends the start with everything it lacks, not with the first failure it would cause.
fn examine() -> Result<Vec<String>, ServeError> {
    let findings = doctor::checks();
    let of = |severity| {
        let found = findings.iter().filter(move |finding| finding.severity == severity);
        found.map(|finding| format!("{}: {}", finding.subject, finding.sentence)).collect::<Vec<_>>()
    };
    let fatal = of(Severity::Fatal);
    if fatal.is_empty() { Ok(of(Severity::Warning)) } else { Err(ServeError::Machine(fatal)) }
}

/// Two agents on one directory would each undo what the other does.
fn lock(data_dir: &Path) -> Result<std::fs::File, ServeError> {
    let failed = part("the data directory");
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    let file = made.and_then(|()| std::fs::File::create(data_dir.join("lock"))).map_err(failed)?;
    file.try_lock().map_err(|_| ServeError::Taken(data_dir.display().to_string()))?;
    Ok(file)
}

/// What the configuration says about the network, parsed.
///
/// # Errors
/// The block is none.
pub fn network_config(config: &Config) -> Result<NetworkConfig, ServeError> {
    let block = config.network.block.as_deref().map(str::parse).transpose();
    Ok(NetworkConfig {
        block: block.map_err(part("[network] block"))?,
        dns_upstream: config.network.dns_upstream.clone().unwrap_or_default(),
        denied: Vec::new(),
    })
}

/// The control plane's addresses, which containers must not reach. On this host they are denied as the host's own anyway.
async fn control_plane_addresses(config: &Config) -> Vec<Block> {
    let url = reqwest::Url::parse(&config.control_plane).ok();
    let target =
        url.as_ref().and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)));
    let Some(target) = target else { return Vec::new() };
    match tokio::net::lookup_host(target).await {
        Ok(addresses) => addresses
            .filter_map(|address| match address.ip() {
                IpAddr::V4(ip) => Some(Block::containing(ip, 32)),
                IpAddr::V6(_) => None,
            })
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "could not resolve the control plane's name; containers are kept from private ranges only");
            Vec::new()
        }
    }
}

async fn open_host(config: &Config) -> Result<Arc<Host>, ServeError> {
    let installation = Installation::new(&config.installation).map_err(part("the installation"))?;
    let cgroups =
        Cgroups::open_in(&installation, config.cgroup_base.as_deref()).map_err(part("the control groups"))?;
    let network_config =
        NetworkConfig { denied: control_plane_addresses(config).await, ..network_config(config)? };
    let network = Network::open(&installation, network_config).await.map_err(part("the network"))?;
    let disk = Disk::open(&installation, &config.data_dir, Shares::divided(config.pool_bytes))
        .await
        .map_err(part("the instances' disk"))?;
    let (major, minor) = disk.device().map_err(part("the instances' disk"))?;
    cgroups.throttle(IoDevice { major, minor });
    let images_config = ImagesConfig {
        layers_dir: disk.layers_dir(),
        unpacker: std::env::current_exe().map_err(part("this program's own file"))?,
        bytes_max: layers_kept(&disk),
    };
    let images = Images::open(&installation, images_config).await.map_err(part("the image layers"))?;
    let launcher = connect(&config.launcher_dir).await?;
    // Not the end: what runs goes on, and each start that needs it says what is missing.
    if let Err(error) = load_security_policy() {
        tracing::error!(%error, "containers cannot be started");
    }
    let uids = UidRanges::new(installation.uid_block());
    Ok(Arc::new(Host {
        installation,
        cgroups,
        network,
        disk,
        images,
        launcher,
        uids,
        ready: Ready::default(),
    }))
}

async fn connect(launcher_dir: &Path) -> Result<Launcher, ServeError> {
    let mut tries = 0;
    loop {
        match Launcher::connect(launcher_dir).await {
            Ok(launcher) => return Ok(launcher),
            Err(error) if tries >= LAUNCHER_TRIES => {
                return Err(part("the connection to the launcher")(error));
            }
            Err(error) if tries == 0 => tracing::warn!(%error, "waiting for the launcher"),
            Err(_) => {}
        }
        tries += 1;
        tokio::time::sleep(LAUNCHER_PAUSE).await;
    }
}

fn spawn_endless(
    loops: &mut JoinSet<Option<String>>,
    endless: impl Future<Output = std::convert::Infallible> + Send + 'static,
) {
    loops.spawn(async { match endless.await {} });
}

/// Unused layers go before all of them together have filled their share: an import finds room without waiting for a removal.
fn layers_kept(disk: &Disk) -> u64 {
    disk.shares().layers_bytes.map_or(u64::MAX, |share| share / 6 * 5)
}

async fn keep_tidy(
    host: Arc<Host>,
    logs: std::path::PathBuf,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> std::convert::Infallible {
    let (mut tidied, mut layers_after) = (Instant::now(), 0);
    loop {
        tokio::time::sleep(LAYERS_EVERY).await;
        let layers = host.disk.layers_used().unwrap_or(0);
        let crowded = layers > layers_kept(&host.disk) && layers != layers_after;
        if tidied.elapsed() < TIDY_EVERY && !crowded {
            continue;
        }
        tidied = Instant::now();
        let living: BTreeSet<InstanceId> =
            snapshots.borrow().instances.iter().map(|seen| seen.report.id).collect();
        let logs = logs.clone();
        let trimmed =
            tokio::task::spawn_blocking(move || trim::trim(&logs, &living, SystemTime::now())).await;
        match host.images.collect().await {
            Ok(bytes) => tracing::debug!(bytes, logs = trimmed.unwrap_or_default(), "tidied up"),
            Err(error) => tracing::warn!(%error, "could not remove unused layers"),
        }
        // If all of them are in use, looking again changes nothing until there are others.
        layers_after = host.disk.layers_used().unwrap_or(0);
    }
}

async fn until_told(loops: &mut JoinSet<Option<String>>) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(part("the signal handler"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(part("the signal handler"))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = loops.join_next() => {
            let why = match ended {
                Some(Ok(reason)) => reason.unwrap_or_else(|| "it did not say why".to_owned()),
                Some(Err(error)) => error.to_string(),
                None => "none was started".to_owned(),
            };
            return Err(ServeError::Ended(format!("a part of the agent ended: {why}")));
        }
    }
    tracing::info!("told to end; containers, traffic and logs go on");
    Ok(())
}

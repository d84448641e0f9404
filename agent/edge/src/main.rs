//! The program: arguments, confinement, start, end. What it does is in the library.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_edge::control::{self, Tables};
use berth_edge::table_file::TableFile;
use berth_edge::{Edge, Limits, access_log, confine, listen, routes, stats};
use clap::Parser;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

type BoxError = Box<dyn std::error::Error>;

/// How often idle connections are looked at.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// Descriptors that are no connections: sockets, logs, the table, epoll.
const DESCRIPTORS_RESERVED: u64 = 64;

/// Takes HTTP requests and gives them to instances.
#[derive(Parser)]
#[command(name = "berth-edge", version)]
struct Arguments {
    /// Its own directory: the agent's socket, the last route table, the access log.
    #[arg(long)]
    dir: PathBuf,
    /// Where to listen, unless a supervisor hands a listening socket over (LISTEN_FDS=1).
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Largest request body in bytes.
    #[arg(long, default_value_t = Limits::default().body_bytes_max)]
    body_bytes_max: u64,
    /// Most connections at once.
    #[arg(long, default_value_t = Limits::default().connections_max)]
    connections_max: u64,
    /// Size in bytes at which access.log is moved to access.log.1.
    #[arg(long, default_value_t = 64 << 20)]
    access_log_bytes_max: u64,
    /// Seconds that a SIGTERM waits for requests in flight.
    #[arg(long, default_value_t = 30)]
    drain_seconds_max: u64,
    /// Threads that serve requests; the number of cores if absent.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // Whoever read stderr may be gone; saying so on stderr would panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), BoxError> {
    let listener = listen::listener(arguments.listen)?;
    std::fs::create_dir_all(&arguments.dir)
        .map_err(|error| format!("could not create {}: {error}", arguments.dir.display()))?;
    let descriptors = confine::raise_descriptors();
    // Each connection may need a second descriptor, to its instance, and leave that one idle when it ends.
    let affordable = descriptors.saturating_sub(DESCRIPTORS_RESERVED) / 3;
    let limits = Limits {
        body_bytes_max: arguments.body_bytes_max,
        connections_max: arguments.connections_max.min(affordable),
        ..Limits::default()
    };
    confine::confine(&arguments.dir)?;
    tracing::info!(address = %listener.local_addr()?, connections_max = limits.connections_max, "listening");

    // After confinement, so that every thread inherits it.
    let log = access_log::AccessLog::start(&arguments.dir, arguments.access_log_bytes_max)?;
    let edge = Arc::new(Edge {
        routes: routes::Routes::new(usize::try_from(limits.connections_max)?),
        log,
        stats: stats::EdgeCounters::default(),
        limits,
        tasks: TaskTracker::new(),
    });
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = arguments.threads {
        runtime.worker_threads(threads.max(1));
    }
    let runtime = runtime.enable_all().thread_name("edge").build()?;
    let tables = Arc::new(Tables::start(edge.clone(), TableFile::new(&arguments.dir)));
    let served = runtime.block_on(async {
        let agents = control::bind(&arguments.dir).map_err(|error| {
            format!("could not bind the agent's socket in {}: {error}", arguments.dir.display())
        })?;
        let listener = TcpListener::from_std(listener)?;
        serve(edge.clone(), listener, agents, tables, Duration::from_secs(arguments.drain_seconds_max)).await
    });
    runtime.shutdown_background();
    edge.log.close();
    served
}

/// Serves until SIGTERM or SIGINT, then until what is in flight has ended, or `drain_max`.
async fn serve(
    edge: Arc<Edge>,
    listener: TcpListener,
    agents: UnixListener,
    tables: Arc<Tables>,
    drain_max: Duration,
) -> Result<(), BoxError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    // The agent is heard until the end: tables and drains matter to the requests still in flight.
    tokio::spawn(control::serve_agents(agents, tables));
    tokio::spawn(tidy(edge.clone()));
    let accepting = tokio::spawn(listen::accept(listener, edge.clone(), stop.clone()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: no new connections, requests in flight may end");
    stop.cancel();
    // The listening socket is closed with the task; connections in a shared backlog are the next edge's.
    accepting.await?;
    edge.tasks.close();
    if timeout(drain_max, edge.tasks.wait()).await.is_err() {
        tracing::warn!(left = edge.tasks.len(), "stopped with connections open");
    }
    Ok(())
}

/// Closes idle connections and forgets old counters.
async fn tidy(edge: Arc<Edge>) {
    let mut every = interval(TIDY_EVERY);
    loop {
        every.tick().await;
        edge.routes.tidy(Instant::now());
    }
}

//! `berthd`: the command line. Everything it does is in the library.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use berth_control_plane::app::{App, Clock};
use berth_control_plane::config::{AppsUrl, Config};
use berth_control_plane::store::Store;
use berth_control_plane::{admin, git, serve};
use berth_wire::quota::{Bounds, MIB};
use clap::{Parser, Subcommand};
use nix::sys::stat::{Mode, umask};
use tracing_subscriber::EnvFilter;

/// The control plane of Berth.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API, git, the registry and the agents.
    Serve {
        /// Data directory.
        #[arg(long)]
        data: PathBuf,
        /// Address to listen on.
        #[arg(long)]
        listen: SocketAddr,
        /// How others reach this process.
        #[arg(long)]
        public_url: String,
        /// How the edge is reached; an app answers at NAME below this domain.
        #[arg(long)]
        apps_url: AppsUrl,
        #[command(flatten)]
        builds: Builds,
    },
    /// API tokens.
    #[command(subcommand)]
    Token(Token),
    /// Hosts.
    #[command(subcommand)]
    Host(Host),
}

/// What one build may use.
#[derive(clap::Args)]
struct Builds {
    /// Memory of a build, in MiB (2048 if absent).
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..))]
    build_memory_mib: Option<u32>,
    /// What a build may write, in MiB (4096 if absent).
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..))]
    build_disk_mib: Option<u32>,
    /// How long a build may take, in seconds (900 if absent).
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    build_seconds: Option<u32>,
}

impl Builds {
    fn apply(&self, config: &mut Config) {
        let bound = |bounds: &mut Bounds, mebibytes: Option<u32>| {
            if let Some(mebibytes) = mebibytes {
                let max = u64::from(mebibytes) * MIB;
                *bounds = Bounds::new(bounds.floor.min(max), max);
            }
        };
        bound(&mut config.build_quota.memory_bytes, self.build_memory_mib);
        bound(&mut config.build_quota.disk_bytes, self.build_disk_mib);
        config.build_seconds_max = self.build_seconds.unwrap_or(config.build_seconds_max);
    }
}

#[derive(Subcommand)]
enum Token {
    /// Make a token and print its secret, once.
    Create {
        /// Data directory.
        #[arg(long)]
        data: PathBuf,
        /// What it is for.
        #[arg(long)]
        name: String,
    },
}

#[derive(Subcommand)]
enum Host {
    /// Add a host and print its id and its token, once.
    Add {
        /// Data directory.
        #[arg(long)]
        data: PathBuf,
        /// What to call it.
        #[arg(long)]
        name: String,
    },
}

fn main() -> ExitCode {
    // Git runs this very binary as its receive hooks, under their names.
    if let Some(stage) = std::env::args().next().and_then(|program| git::hook::stage(&program)) {
        return git::hook::run(stage);
    }
    // What git and SQLite make in the data directory is nobody else's either.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    serve_or_administer()
}

#[tokio::main]
async fn serve_or_administer() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berthd: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    let clock = Clock::system();
    match command {
        Command::Serve { data, listen, public_url, apps_url, builds } => {
            let mut config = Config::new(&data, listen, &public_url, apps_url);
            builds.apply(&mut config);
            serve::serve(App::open(config, clock).await?).await?;
        }
        Command::Token(Token::Create { data, name }) => {
            let store = Store::open(&data, clock.now()).await?;
            println!("{}", admin::token_create(&store, &name, clock.now()).await?);
        }
        Command::Host(Host::Add { data, name }) => {
            let store = Store::open(&data, clock.now()).await?;
            let (id, secret) = admin::host_add(&store, &name, clock.now()).await?;
            println!("{id}\n{secret}");
        }
    }
    Ok(())
}

//! The agent's command line. Each subcommand parses, calls the library and maps its outcome to an exit code: 0 done, 1 failed, 2 misused.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use berth_agent::config::Config;
use berth_agent::{doctor, image, run, serve, teardown};

/// Makes this host match its spec: runs containers under quotas, routes to them, reports on them.
#[derive(Parser)]
#[command(name = "berth-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent until SIGTERM. Containers go on when it ends; the next one takes them over.
    Serve {
        /// The configuration file (TOML).
        #[arg(long)]
        config: PathBuf,
    },
    /// Run one command in an isolated container of its own, attached. Needs no agent.
    Run(Box<run::Arguments>),
    /// Unpack a layer; started, confined, by the agent itself.
    #[command(hide = true)]
    Unpack,
    /// Say what this machine lacks for running containers. Changes nothing.
    Doctor,
    /// Kill every container of an installation and give back all it took from this machine. Idempotent.
    Teardown {
        /// The configuration file (TOML).
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Serve { config } => with_config(config, |config| block_on(serve::serve(config))),
        Command::Teardown { config } => with_config(config, |config| block_on(teardown::teardown(&config))),
        Command::Run(arguments) => return run_attached(*arguments),
        // Before any second thread: it gives up its privileges.
        Command::Unpack => return image::unpack_main(),
        Command::Doctor => return print_findings(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("berth-agent: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn with_config(path: PathBuf, run: impl FnOnce(Config) -> Result<(), String>) -> Result<(), String> {
    // The owner of a process's directory is its effective user.
    let user = std::fs::metadata("/proc/self").map_or(u32::MAX, |metadata| metadata.uid());
    if user != 0 {
        return Err(
            "it must run as root: cgroups, mounts and interfaces are root's alone (D10); try sudo".to_owned()
        );
    }
    init_logging();
    run(Config::read(&path).map_err(|e| e.to_string())?)
}

/// One event, one line, on standard error; `BERTH_LOG` filters as `RUST_LOG` does elsewhere.
fn init_logging() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_env("BERTH_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn block_on<T, E: std::fmt::Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("could not start its threads: {e}"))?;
    let outcome = runtime.block_on(work).map_err(|e| e.to_string());
    // Threads that follow logs may sleep; nothing is lost with them.
    runtime.shutdown_background();
    outcome
}

fn run_attached(arguments: run::Arguments) -> ExitCode {
    let outcome = block_on(async { Ok::<_, String>(run::run(arguments).await) });
    outcome.unwrap_or_else(|sentence| {
        eprintln!("berth-agent: {sentence}");
        ExitCode::from(125)
    })
}

fn print_findings() -> ExitCode {
    let findings = doctor::checks();
    for finding in &findings {
        let mark = match finding.severity {
            doctor::Severity::Good => "ok",
            doctor::Severity::Warning => "warning",
            doctor::Severity::Fatal => "missing",
        };
        let code = finding.code.map(|code| format!(" [{code}]")).unwrap_or_default();
        println!("{mark:8} {}: {}{code}", finding.subject, finding.sentence);
    }
    let fatal = findings.iter().any(|finding| finding.severity == doctor::Severity::Fatal);
    if fatal { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

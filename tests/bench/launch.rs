//! `launch`: how long from the agent's call until a container's command ran, exited, was reaped and everything of it was removed, with
//! full isolation and quotas; beside the peers, one of each in every round, so that whatever else the machine does hits all alike.
//! Prints one JSON object on one line. How the peers are set up is `run.sh`'s business.
//!
//! Arguments: number of rounds, directory of a root file system, path of berth-launcher, directory for working files, file with the
//! peers (JSON), file with those that cannot run (JSON).
//!
//! CPU is that of this process during a launch (its refills and clearing up included) and of the launcher with all that it reaped; of a
//! peer, of the command with all that it reaped, and of its daemon. What the kernel does later in its own threads is charged to nobody.

mod peers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_agent::cgroup::Cgroups;
use berth_agent::container::{Capabilities, ContainerSpec, Host, Output, READY_MAX, Ready};
use berth_agent::disk::Disk;
use berth_agent::disk::shares::Shares;
use berth_agent::image::{Images, ImagesConfig};
use berth_agent::installation::Installation;
use berth_agent::launch::{Launcher, UidRanges};
use berth_agent::network::{Network, NetworkConfig};
use berth_wire::id::InstanceId;
use berth_wire::quota::{MIB, Quota};
use berth_wire::report::Exit;
use serde::{Deserialize, Serialize};

use peers::{Cost, Peer};

type Failure = Box<dyn std::error::Error>;

/// Before each measurement: the kernel takes network namespaces apart afterwards, under locks that the next one would wait for.
const PAUSE: Duration = Duration::from_millis(50);
/// Rounds that are not counted: files get into the cache, daemons wake up.
const WARM_UP: usize = 5;

struct Arguments {
    rounds: usize,
    root: PathBuf,
    launcher: PathBuf,
    work: PathBuf,
    peers: Vec<Peer>,
    missing: Vec<Missing>,
}

#[derive(Serialize, Deserialize)]
struct Missing {
    peer: String,
    reason: String,
}

#[derive(Serialize)]
struct Figures {
    p50_ms: f64,
    p99_ms: f64,
    cpu_ms: f64,
}

#[derive(Serialize)]
struct Report {
    name: &'static str,
    runs: usize,
    ours: Figures,
    peers: BTreeMap<String, Figures>,
    ratios: BTreeMap<String, f64>,
    missing: Vec<Missing>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let mut word = |what: &str| words.next().ok_or(format!("argument {what} is missing"));
    let mut arguments = Arguments {
        rounds: word("ROUNDS")?.parse()?,
        root: word("ROOT")?.into(),
        launcher: word("LAUNCHER")?.into(),
        work: word("WORK")?.into(),
        peers: serde_json::from_slice(&std::fs::read(word("PEERS")?)?)?,
        missing: serde_json::from_slice(&std::fs::read(word("MISSING")?)?)?,
    };
    let mut launcher =
        Command::new(&arguments.launcher).arg("--dir").arg(arguments.work.join("launcher")).spawn()?;
    let measured = measure(&mut arguments, launcher.id()).await;
    end(&mut launcher);
    println!("{}", serde_json::to_string(&measured?)?);
    Ok(())
}

fn end(launcher: &mut Child) {
    let _ = launcher.kill();
    let _ = launcher.wait();
}

async fn open(arguments: &Arguments) -> Result<Host, Failure> {
    let installation = Installation::new(&format!("bench-{}", std::process::id()))?;
    let disk = Disk::open(&installation, &arguments.work, Shares::undivided(1_024 * MIB)).await?;
    let config = ImagesConfig {
        layers_dir: disk.layers_dir(),
        unpacker: std::env::current_exe()?,
        bytes_max: u64::MAX,
    };
    Ok(Host {
        cgroups: Cgroups::open(&installation)?,
        network: Network::open(&installation, NetworkConfig::default()).await?,
        images: Images::open(&installation, config).await?,
        launcher: connect(&arguments.work.join("launcher")).await?,
        uids: UidRanges::new(installation.uid_block()),
        ready: Ready::default(),
        disk,
        installation,
    })
}

async fn measure(arguments: &mut Arguments, launcher: u32) -> Result<Report, Failure> {
    let host = Arc::new(open(arguments).await?);
    host.adopt().await?;
    let filler = tokio::spawn(host.clone().keep_ready(READY_MAX));
    host.ready.wait_for(READY_MAX).await;
    let measured = rounds(&host, arguments, launcher).await;
    filler.abort();
    let _ = filler.await;
    host.discard_ready().await;
    host.network.close_down().await?;
    host.cgroups.close_down()?;
    host.disk.close().await?;
    host.installation.release()?;
    measured
}

async fn rounds(host: &Host, arguments: &mut Arguments, launcher: u32) -> Result<Report, Failure> {
    let (mut ours, mut launcher_ms) = (Vec::new(), 0.0);
    let mut theirs: BTreeMap<String, Vec<Cost>> = BTreeMap::new();
    for round in 0..WARM_UP + arguments.rounds {
        if round == WARM_UP {
            launcher_ms = peers::cpu_ms_of(launcher)?;
            ours.clear();
            theirs.clear();
        }
        tokio::time::sleep(PAUSE).await;
        ours.push(one(host, arguments).await?);
        for peer in std::mem::take(&mut arguments.peers) {
            tokio::time::sleep(PAUSE).await;
            match peer.run(round, &arguments.work) {
                Ok(cost) => {
                    theirs.entry(peer.key.clone()).or_default().push(cost);
                    arguments.peers.push(peer);
                }
                Err(reason) => {
                    theirs.remove(&peer.key);
                    arguments.missing.push(Missing { peer: peer.key, reason });
                }
            }
        }
        if round % 25 == 0 {
            eprintln!("round {round} of {}", WARM_UP + arguments.rounds);
        }
    }
    launcher_ms = (peers::cpu_ms_of(launcher)? - launcher_ms) / arguments.rounds.max(1) as f64;
    let mut ours = figures(&ours);
    ours.cpu_ms = rounded(ours.cpu_ms + launcher_ms);
    let theirs: BTreeMap<String, Figures> =
        theirs.into_iter().map(|(key, costs)| (key, figures(&costs))).collect();
    let ratios =
        theirs.iter().map(|(key, figures)| (key.clone(), rounded(ours.p50_ms / figures.p50_ms))).collect();
    let missing = std::mem::take(&mut arguments.missing);
    Ok(Report { name: "launch", runs: arguments.rounds, ours, peers: theirs, ratios, missing })
}

/// Median and 99th percentile of the time, mean of the CPU time.
fn figures(costs: &[Cost]) -> Figures {
    let mut wall: Vec<f64> = costs.iter().map(|cost| cost.wall_ms).collect();
    wall.sort_by(f64::total_cmp);
    let at = |share: usize| rounded(wall.get(wall.len() * share / 100).copied().unwrap_or_default());
    let cpu: f64 = costs.iter().map(|cost| cost.cpu_ms).sum();
    Figures { p50_ms: at(50), p99_ms: at(99), cpu_ms: rounded(cpu / costs.len().max(1) as f64) }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

async fn one(host: &Host, arguments: &Arguments) -> Result<Cost, Failure> {
    let id = InstanceId(uuid::Uuid::now_v7());
    let spec = ContainerSpec {
        id,
        hostname: "bench".into(),
        layers: vec![arguments.root.clone()],
        argv: vec!["/bin/true".into()],
        env: BTreeMap::new(),
        cwd: "/".into(),
        user: (1_000, 1_000),
        quota: Quota::default(),
        binds: vec![],
        output: Output::File {
            path: arguments.work.join("log"),
            bytes_max: 1 << 20,
            lines_per_second: 1_000,
        },
        capabilities: Capabilities::App,
        network: true,
    };
    let (start, cpu) = (Instant::now(), peers::own_cpu_ms());
    let steps = host.start(spec).await?.steps;
    let started = start.elapsed();
    let exit = host.wait(id).await;
    let exited = start.elapsed();
    host.destroy(id, true).await?;
    let took = start.elapsed();
    if exit != Exit::Code(0) {
        return Err(format!("/bin/true ended with {exit:?}").into());
    }
    if std::env::var_os("BENCH_VERBOSE").is_some() {
        eprintln!(
            "started {started:?} exited {exited:?} removed {took:?} {}",
            serde_json::to_string(&steps)?
        );
    }
    // What the next one takes is made again, and counts.
    host.ready.wait_for(READY_MAX).await;
    host.network.settle().await;
    Ok(Cost { wall_ms: took.as_secs_f64() * 1_000.0, cpu_ms: peers::own_cpu_ms() - cpu })
}

async fn connect(dir: &Path) -> Result<Launcher, Failure> {
    for _ in 0..500 {
        if let Ok(launcher) = Launcher::connect(dir).await {
            return Ok(launcher);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("the launcher did not start".into())
}

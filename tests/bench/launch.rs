//! `launch`: how long from the agent's call until a container's command ran, exited, was reaped and everything of it was removed, with
//! full isolation and quotas. Prints one JSON object on one line: {"p50_ms":…,"p99_ms":…}. Peers are `run.sh`'s business.
//!
//! Arguments: number of runs, directory of a root file system, path of berth-launcher, directory for working files, `net` for a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use berth_agent::cgroup::Cgroups;
use berth_agent::container::{Capabilities, ContainerSpec, Host, Output};
use berth_agent::disk::Disk;
use berth_agent::image::{Images, ImagesConfig};
use berth_agent::installation::Installation;
use berth_agent::launch::{Launcher, UidRanges};
use berth_agent::network::{Network, NetworkConfig};
use berth_wire::id::InstanceId;
use berth_wire::quota::{MIB, Quota};
use berth_wire::report::Exit;

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    runs: usize,
    root: PathBuf,
    launcher: PathBuf,
    work: PathBuf,
    network: bool,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let mut word = |what: &str| words.next().ok_or(format!("argument {what} is missing"));
    let arguments = Arguments {
        runs: word("RUNS")?.parse()?,
        root: word("ROOT")?.into(),
        launcher: word("LAUNCHER")?.into(),
        work: word("WORK")?.into(),
        network: word("net or none")? == "net",
    };
    let mut launcher =
        Command::new(&arguments.launcher).arg("--dir").arg(arguments.work.join("launcher")).spawn()?;
    let measured = measure(&arguments).await;
    end(&mut launcher);
    let mut took = measured?;
    took.sort_by(f64::total_cmp);
    let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default();
    println!("{{\"p50_ms\":{:.3},\"p99_ms\":{:.3}}}", at(50), at(99));
    Ok(())
}

fn end(launcher: &mut Child) {
    let _ = launcher.kill();
    let _ = launcher.wait();
}

async fn measure(arguments: &Arguments) -> Result<Vec<f64>, Failure> {
    let installation = Installation::new(&format!("bench-{}", std::process::id()))?;
    let disk = Disk::open(&installation, &arguments.work, 1_024 * MIB).await?;
    let config = ImagesConfig {
        layers_dir: disk.layers_dir(),
        unpacker: std::env::current_exe()?,
        bytes_max: u64::MAX,
    };
    let host = Host {
        cgroups: Cgroups::open(&installation)?,
        network: Network::open(&installation, NetworkConfig::default()).await?,
        images: Images::open(&installation, config).await?,
        launcher: connect(&arguments.work.join("launcher")).await?,
        uids: UidRanges::new(installation.uid_block()),
        disk,
        installation,
    };
    let mut took = Vec::with_capacity(arguments.runs);
    for _ in 0..arguments.runs {
        took.push(one(&host, arguments).await?);
    }
    host.network.close_down().await?;
    host.cgroups.close_down()?;
    host.disk.close().await?;
    host.installation.release()?;
    Ok(took)
}

async fn one(host: &Host, arguments: &Arguments) -> Result<f64, Failure> {
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
        network: arguments.network,
    };
    let start = Instant::now();
    host.start(spec).await?;
    let started = start.elapsed();
    let exit = host.wait(id).await;
    let exited = start.elapsed();
    host.destroy(id, true).await?;
    let took = start.elapsed();
    if exit != Exit::Code(0) {
        return Err(format!("/bin/true ended with {exit:?}").into());
    }
    if std::env::var_os("BENCH_VERBOSE").is_some() {
        eprintln!("started {started:?} exited {exited:?} removed {took:?}");
    }
    Ok(took.as_secs_f64() * 1_000.0)
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

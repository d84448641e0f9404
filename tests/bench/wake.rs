//! `wake`: one Python web server, frozen and its memory given back into compressed swap; what it keeps resident then, and how long it takes
//! from the decision to thaw until the first byte of an answer. The same app in one run, round after round. Prints one JSON object on one
//! line.
//!
//! Resident is all that is charged to the container's group (page tables and kernel memory included) plus what the swapped part takes
//! compressed: nothing is left out by where it lies. The pages of the image's files, which all instances share, are dropped too.
//!
//! Arguments: number of rounds, directory of a root file system with python3, path of berth-launcher, directory for working files.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use berth_agent::container::{Capabilities, ContainerSpec, Host, Output};
use berth_agent::disk::zram::Zram;
use berth_agent::idle;
use berth_tests::host::{self, Failure};
use berth_wire::id::InstanceId;
use berth_wire::quota::{MIB, Quota};
use serde::Serialize;

const PORT: u16 = 8_080;

#[derive(Serialize)]
struct Report {
    name: &'static str,
    runs: usize,
    ours: Figures,
    target: Target,
}

/// Medians; the first byte's 99th percentile, too.
#[derive(Serialize)]
struct Figures {
    idle_kib: u64,
    idle_charged_kib: u64,
    idle_compressed_kib: u64,
    swapped_kib: u64,
    running_kib: u64,
    first_byte_p50_ms: f64,
    first_byte_p99_ms: f64,
    running_first_byte_p50_ms: f64,
}

#[derive(Serialize)]
struct Target {
    idle_kib: u64,
    first_byte_p99_ms: u64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let mut word = |what: &str| words.next().ok_or(format!("argument {what} is missing"));
    let rounds: usize = word("ROUNDS")?.parse()?;
    let (root, launcher, work) =
        (PathBuf::from(word("ROOT")?), PathBuf::from(word("LAUNCHER")?), PathBuf::from(word("WORK")?));
    let mut launcher = Command::new(launcher).arg("--dir").arg(work.join("launcher")).spawn()?;
    let measured = measure(rounds, &root, &work).await;
    let _ = launcher.kill();
    let _ = launcher.wait();
    println!("{}", serde_json::to_string(&measured?)?);
    Ok(())
}

async fn measure(rounds: usize, root: &Path, work: &Path) -> Result<Report, Failure> {
    let name = format!("wake-{}", std::process::id());
    let host = host::open(&name, work, 1_024 * MIB, std::env::current_exe()?).await?;
    host.adopt().await?;
    let zram = idle::set_up_swap(&host.installation)?;
    let id = InstanceId(uuid::Uuid::now_v7());
    let measured = one(&host, id, root, work, rounds, &zram).await;
    host.destroy(id, true).await?;
    idle::remove_swap(&host.installation)?;
    host.network.close_down().await?;
    host.cgroups.close_down()?;
    host.disk.close().await?;
    host.installation.release()?;
    let target = Target { idle_kib: 3_072, first_byte_p99_ms: 50 };
    Ok(Report { name: "wake", runs: rounds, ours: measured?, target })
}

async fn one(
    host: &Host,
    id: InstanceId,
    root: &Path,
    work: &Path,
    rounds: usize,
    zram: &Zram,
) -> Result<Figures, Failure> {
    let spec = ContainerSpec {
        id,
        hostname: "bench".into(),
        layers: vec![root.to_owned()],
        argv: ["python3", "-m", "http.server", "8080", "--directory", "/etc"].map(str::to_owned).into(),
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        cwd: "/".into(),
        user: (1_000, 1_000),
        quota: Quota::default(),
        binds: vec![],
        output: Output::File { path: work.join("log"), bytes_max: 1 << 20, lines_per_second: 1_000 },
        capabilities: Capabilities::App,
        network: true,
    };
    let address = host.start(spec).await?.endpoint.ok_or("the container has no network")?.address;
    let deadline = Instant::now() + Duration::from_secs(60);
    while first_byte(address).is_err() {
        if Instant::now() > deadline {
            return Err("the web server did not come up".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut running = Vec::new();
    for _ in 0..20 {
        running.push(first_byte(address)?.as_secs_f64() * 1_000.0);
    }
    let running_kib = host.footprint(id).await?.resident_bytes >> 10;
    let (mut charged, mut compressed, mut swapped, mut woken) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let before = zram.usage()?.used_bytes;
        host.freeze(id).await?;
        let footprint = host.reclaim(id, true).await?;
        charged.push((footprint.resident_bytes >> 10) as f64);
        swapped.push((footprint.swapped_bytes >> 10) as f64);
        // Of the whole device: nobody else uses it in this run, and what was left from the round before counts.
        compressed.push((zram.usage()?.used_bytes >> 10) as f64);
        let begin = Instant::now();
        host.thaw(id, Quota::default()).await?;
        first_byte(address)?;
        woken.push(begin.elapsed().as_secs_f64() * 1_000.0);
        if round % 20 == 0 {
            eprintln!("round {round} of {rounds}, {} KiB compressed before", before >> 10);
        }
    }
    let (idle_charged_kib, idle_compressed_kib) = (at(&mut charged, 50), at(&mut compressed, 50));
    Ok(Figures {
        idle_kib: (idle_charged_kib + idle_compressed_kib) as u64,
        idle_charged_kib: idle_charged_kib as u64,
        idle_compressed_kib: idle_compressed_kib as u64,
        swapped_kib: at(&mut swapped, 50) as u64,
        running_kib,
        first_byte_p50_ms: at(&mut woken, 50),
        first_byte_p99_ms: at(&mut woken, 99),
        running_first_byte_p50_ms: at(&mut running, 50),
    })
}

/// The value at so many hundredths.
fn at(values: &mut [f64], share: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let value = values.get(values.len() * share / 100).copied().unwrap_or_default();
    (value * 1_000.0).round() / 1_000.0
}

fn first_byte(address: Ipv4Addr) -> Result<Duration, Failure> {
    let begin = Instant::now();
    let to = SocketAddr::from((address, PORT));
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
    stream.read_exact(&mut [0])?;
    Ok(begin.elapsed())
}

//! `launch`: how long from the agent's call until a container's command ran, exited, was reaped and everything of it was removed, with
//! full isolation and quotas; beside the peers, one of each in every round, so that whatever else the machine does hits all alike.
//!
//! CPU is that of this process (making parts ahead and clearing up included) and of the launcher with all that it reaped; of a peer, of
//! the command with all that it reaped, and of its daemon. What the kernel does later in its own threads is charged to nobody.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_agent::container::READY_MAX;
use berth_wire::report::Exit;

use crate::peers::Cost;
use crate::report::{Figures, Missing, Report, percentile};
use crate::stage::Stage;
use crate::{Arguments, Failure};

/// Before each measurement: the kernel takes network namespaces apart afterwards, under locks that the next one would wait for.
const PAUSE: Duration = Duration::from_millis(50);
/// Rounds that are not counted: files get into the cache, daemons wake up.
const WARM_UP: usize = 5;
/// Ten times what is made ahead, so that what was there at the beginning does not decide.
const ROUNDS: usize = 10 * READY_MAX;

pub async fn measure(arguments: Arguments) -> Result<Report, Failure> {
    let stage = Stage::open(&arguments.places, 1).await?;
    let measured = rounds(&stage, arguments).await;
    stage.close().await?;
    measured
}

async fn rounds(stage: &Stage, mut arguments: Arguments) -> Result<Report, Failure> {
    let rounds = arguments.count_or(ROUNDS);
    let mut ours = Vec::new();
    let mut theirs: BTreeMap<String, Vec<Cost>> = BTreeMap::new();
    for round in 0..WARM_UP + rounds {
        if round == WARM_UP {
            ours.clear();
            theirs.clear();
        }
        tokio::time::sleep(PAUSE).await;
        ours.push(one(stage).await?);
        for peer in std::mem::take(&mut arguments.peers) {
            tokio::time::sleep(PAUSE).await;
            match peer.run(round, &arguments.places.work) {
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
            eprintln!("round {round} of {}", WARM_UP + rounds);
        }
    }
    let peers = theirs.into_iter().map(|(key, costs)| (key, figures(&costs))).collect();
    Ok(Report { name: "launch", runs: rounds, ours: figures(&ours), peers, missing: arguments.missing })
}

/// Median and 99th percentile of the time, mean of the CPU time.
fn figures(costs: &[Cost]) -> Figures {
    let wall: Vec<f64> = costs.iter().map(|cost| cost.wall_ms).collect();
    let cpu: f64 = costs.iter().map(|cost| cost.cpu_ms).sum();
    Figures::default()
        .with("p50_ms", percentile(&wall, 50))
        .with("p99_ms", percentile(&wall, 99))
        .with("cpu_ms", cpu / costs.len().max(1) as f64)
}

async fn one(stage: &Stage) -> Result<Cost, Failure> {
    let (host, spec, cpu) = (&stage.host, stage.spec("/bin/true"), stage.cpu_ms()?);
    let (id, start) = (spec.id, Instant::now());
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
        let steps = serde_json::to_string(&steps)?;
        eprintln!("started {started:?} exited {exited:?} removed {took:?} {steps}");
    }
    // What this one took is made again, and counts.
    host.ready.wait_for(READY_MAX).await;
    host.network.settle().await;
    Ok(Cost { wall_ms: took.as_secs_f64() * 1_000.0, cpu_ms: stage.cpu_ms()? - cpu })
}

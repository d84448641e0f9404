//! `storm`: many containers are created, ready and destroyed, 16 at once, until what is made ahead is there again: milliseconds of wall
//! clock each. Then how long a start takes when that many run already, as a ratio to the first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use berth_agent::container::READY_MAX;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};

use crate::peers::Peer;
use crate::report::{Figures, Report, percentile};
use crate::stage::Stage;
use crate::{Arguments, Failure};

const AT_ONCE: usize = 16;
/// Ten times what is made ahead.
const CONTAINERS: usize = 10 * READY_MAX;
/// Starts at each end of the row of living ones: one alone says little.
const STARTS: usize = 10;
/// The slowest peer takes about a second each.
const PEERS_CONTAINERS: usize = 48;

pub async fn measure(mut arguments: Arguments) -> Result<Report, Failure> {
    let count = arguments.count_or(CONTAINERS);
    let stage = Stage::open(&arguments.places, count).await?;
    let ours = ours(&stage, count).await;
    stage.close().await?;
    let count_of_peers = count.min(PEERS_CONTAINERS);
    let peers = arguments.beside(|peer, arguments| theirs(peer, arguments, count_of_peers));
    Ok(Report { name: "storm", runs: count, ours: ours?, peers, missing: arguments.missing })
}

async fn ours(stage: &Stage, count: usize) -> Result<Figures, Failure> {
    let (start, cpu) = (Instant::now(), stage.cpu_ms()?);
    let one = |number: usize| async move {
        let spec = stage.spec("/bin/pause");
        let id = spec.id;
        stage.host.start(spec).await?;
        stage.host.destroy(id, true).await?;
        if number.is_multiple_of(50) {
            eprintln!("{number} of {count}");
        }
        Ok::<(), Failure>(())
    };
    futures_util::stream::iter(0..count).map(one).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    stage.host.ready.wait_for(READY_MAX).await;
    stage.host.network.settle().await;
    let each_ms = start.elapsed().as_secs_f64() * 1_000.0 / count as f64;
    let cpu_ms = (stage.cpu_ms()? - cpu) / count as f64;
    let first = starts(stage).await?;
    let living = stage.start_idle(count).await;
    let last = starts(stage).await;
    if let Ok(living) = living {
        stage.destroy(living).await?;
    }
    let figures = Figures::default().with("each_ms", each_ms).with("cpu_ms", cpu_ms);
    Ok(figures.with("start_ms", first).with("start_beside_all_ms", last?))
}

/// The median of some starts, with everything ready.
async fn starts(stage: &Stage) -> Result<f64, Failure> {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        stage.host.ready.wait_for(READY_MAX).await;
        let (spec, start) = (stage.spec("/bin/pause"), Instant::now());
        let id = spec.id;
        stage.host.start(spec).await?;
        took.push(start.elapsed().as_secs_f64() * 1_000.0);
        stage.destroy(vec![id]).await?;
    }
    Ok(percentile(&took, 50))
}

fn theirs(peer: &Peer, arguments: &Arguments, count: usize) -> Result<Figures, Failure> {
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    let worker = || -> Result<(), String> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            peer.run(number, &arguments.places.work)?;
            peer.destroy(number, &arguments.places.work)?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Err("panicked".to_owned())))
    })?;
    Ok(Figures::default().with("each_ms", start.elapsed().as_secs_f64() * 1_000.0 / count as f64))
}

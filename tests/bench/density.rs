//! `density`: KiB that an idle container takes of the machine beside the pages of its own program: what MemAvailable is less by with so
//! many of them, caches dropped, and where it is: slab, anonymous pages, page tables, kernel stacks, per-CPU data. Whatever else starts or
//! ends on the machine meanwhile is in the figure: measure on a quiet one, with many containers.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_agent::container::ContainerSpec;

use crate::peers::Peer;
use crate::report::{Figures, Report};
use crate::stage::Stage;
use crate::{Arguments, Failure};

const CONTAINERS: usize = 100;
/// The slowest peer takes about a second each.
const PEERS_CONTAINERS: usize = 30;
/// The kernel frees and counts some of it later, on its own.
const SETTLE: Duration = Duration::from_secs(3);

/// Fields of /proc/meminfo that are told apart, and what they are called.
const PARTS: [(&str, &str); 5] = [
    ("Slab", "slab_kib"),
    ("AnonPages", "anonymous_kib"),
    ("PageTables", "page_tables_kib"),
    ("KernelStack", "stacks_kib"),
    ("Percpu", "percpu_kib"),
];

pub async fn measure(mut arguments: Arguments) -> Result<Report, Failure> {
    let count = arguments.count_or(CONTAINERS);
    let stage = Stage::open(&arguments.places, count).await?;
    let ours = ours(&stage, count).await;
    stage.close().await?;
    let count_of_peers = count.min(PEERS_CONTAINERS);
    let peers = arguments.beside(|peer, arguments| theirs(peer, arguments, count_of_peers));
    Ok(Report { name: "density", runs: count, ours: ours?, peers, missing: arguments.missing })
}

async fn ours(stage: &Stage, count: usize) -> Result<Figures, Failure> {
    // One first: what is loaded once and shared is not each one's.
    let warm = stage.start_idle(1).await?;
    let before = Memory::now()?;
    let ids = stage.start_idle(count).await;
    let after = Memory::now();
    stage.destroy(ids?).await?;
    stage.destroy(warm).await?;
    let figures = before.each(&after?, count);
    Ok(figures.with("without_network_kib", without_network(stage, count).await?))
}

/// The same without interface, route and addresses; the network namespace itself is there.
async fn without_network(stage: &Stage, count: usize) -> Result<f64, Failure> {
    let before = Memory::now()?;
    let ids = stage.start_each(count, || ContainerSpec { network: false, ..stage.spec("/bin/pause") }).await;
    let after = Memory::now();
    stage.destroy(ids?).await?;
    Ok(before.less(&after?) / count as f64)
}

fn theirs(peer: &Peer, arguments: &Arguments, count: usize) -> Result<Figures, Failure> {
    let work = &arguments.places.work;
    peer.run(count, work)?;
    let before = Memory::now()?;
    let started = (0..count).try_for_each(|number| peer.run(number, work).map(drop));
    let after = Memory::now();
    (0..=count).for_each(|number| drop(peer.destroy(number, work)));
    started?;
    Ok(before.each(&after?, count))
}

/// Fields of /proc/meminfo in KiB, and the PSS of the apps' own processes.
struct Memory(BTreeMap<String, f64>, f64);

impl Memory {
    fn now() -> Result<Self, Failure> {
        std::thread::sleep(SETTLE);
        rustix::fs::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
        let text = std::fs::read_to_string("/proc/meminfo")?;
        let field = |line: &str| {
            let (name, rest) = line.split_once(':')?;
            Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
        };
        Ok(Self(text.lines().filter_map(field).collect(), apps_pss_kib()))
    }

    fn of(&self, field: &str) -> f64 {
        self.0.get(field).copied().unwrap_or_default()
    }

    /// What is gone since, but for the apps' own pages.
    fn less(&self, after: &Self) -> f64 {
        self.of("MemAvailable") - after.of("MemAvailable") - (after.1 - self.1)
    }

    fn each(&self, after: &Self, count: usize) -> Figures {
        let count = count as f64;
        let all = Figures::default().with("each_kib", self.less(after) / count);
        PARTS.iter().fold(all, |figures, (field, name)| {
            figures.with(name, (after.of(field) - self.of(field)) / count)
        })
    }
}

/// The proportional set size of every `/bin/pause`.
fn apps_pss_kib() -> f64 {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0.0 };
    let pss = |process: std::path::PathBuf| -> Option<f64> {
        if std::fs::read_to_string(process.join("comm")).ok()?.trim() != "pause" {
            return None;
        }
        let text = std::fs::read_to_string(process.join("smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse().ok()
    };
    processes.filter_map(|entry| pss(entry.ok()?.path())).sum()
}

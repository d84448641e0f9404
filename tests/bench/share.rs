//! `share`: what many instances of one large image take of disk and of page cache, as multiples of what one of them takes. Each reads
//! the whole image once, then waits; all of them live at the same time.
//!
//! Ours uses the image's directory as a layer, as it would one of the image store; a peer's image store is its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use berth_agent::container::ContainerSpec;
use berth_wire::quota::{Bounds, MIB, Quota};

use crate::peers::Peer;
use crate::report::{Figures, Report};
use crate::stage::Stage;
use crate::{Arguments, Failure};

const CONTAINERS: usize = 100;
/// The slowest peer takes about a second each.
const PEERS_CONTAINERS: usize = 30;
/// Reads the image, then is called [`DONE`].
const PROGRAM: &str = "/bin/share";
const DONE: &str = "shared";
/// The file that makes the image large.
const IMAGE: &str = "image";
/// One instance reads a gibibyte in less than a second.
const READ_MAX: Duration = Duration::from_secs(120);

pub async fn measure(mut arguments: Arguments) -> Result<Report, Failure> {
    let count = arguments.count_or(CONTAINERS);
    let stage = Stage::open(&arguments.places, count).await?;
    let ours = ours(&stage, count).await;
    stage.close().await?;
    let count_of_peers = count.min(PEERS_CONTAINERS);
    let peers = arguments.beside(|peer, arguments| theirs(peer, arguments, count_of_peers));
    Ok(Report { name: "share", runs: count, ours: ours?, peers, missing: arguments.missing })
}

async fn ours(stage: &Stage, count: usize) -> Result<Figures, Failure> {
    // A file's pages are charged to whoever reads them first: with less memory it could not keep them.
    let quota = Quota { memory_bytes: Bounds::new(0, 2_048 * MIB), ..Quota::default() };
    let spec = || ContainerSpec { quota, ..stage.spec(PROGRAM) };
    let taken = || -> Result<Taken, Failure> {
        rustix::fs::sync();
        let (size, free) = stage.host.disk.space()?;
        Ok(Taken { disk_kib: (size - free) / 1_024, cache_kib: cache_kib()? })
    };
    drop_caches()?;
    let none = taken()?;
    let mut ids = stage.start_each(1, spec).await?;
    wait_until_read(1)?;
    let one = taken()?;
    let more = stage.start_each(count - 1, spec).await;
    let read = wait_until_read(count);
    let all = taken();
    ids.extend(more?);
    stage.destroy(ids).await?;
    read?;
    Ok(figures(image_kib(stage.root())?, &none, &one, &all?))
}

fn theirs(peer: &Peer, arguments: &Arguments, count: usize) -> Result<Figures, Failure> {
    let (work, data) = (&arguments.places.work, peer.data().ok_or("keeps no images")?);
    let taken =
        || -> Result<Taken, Failure> { Ok(Taken { disk_kib: disk_kib(data)?, cache_kib: cache_kib()? }) };
    let measured = || -> Result<Figures, Failure> {
        drop_caches()?;
        let none = taken()?;
        peer.run(0, work)?;
        wait_until_read(1)?;
        let one = taken()?;
        (1..count).try_for_each(|number| peer.run(number, work).map(drop))?;
        wait_until_read(count)?;
        Ok(figures(image_kib(&arguments.places.root)?, &none, &one, &taken()?))
    };
    let figures = measured();
    (0..count).for_each(|number| drop(peer.destroy(number, work)));
    figures
}

/// What is taken of both at a moment.
struct Taken {
    disk_kib: u64,
    cache_kib: u64,
}

/// The image itself is on the disk once, before the first instance.
fn figures(image_kib: u64, none: &Taken, one: &Taken, all: &Taken) -> Figures {
    let disk = |taken: &Taken| (image_kib + taken.disk_kib.saturating_sub(none.disk_kib)) as f64;
    let cache = |taken: &Taken| taken.cache_kib.saturating_sub(none.cache_kib).max(1) as f64;
    Figures::default()
        .with("disk_times", disk(all) / disk(one))
        .with("cache_times", cache(all) / cache(one))
        .with("cache_of_one_kib", cache(one))
}

fn image_kib(root: &Path) -> Result<u64, Failure> {
    Ok(std::fs::metadata(root.join(IMAGE))?.len() / 1_024)
}

fn drop_caches() -> Result<(), Failure> {
    rustix::fs::sync();
    Ok(std::fs::write("/proc/sys/vm/drop_caches", "3")?)
}

/// Pages of files; shared memory is counted among them, but is none.
fn cache_kib() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    Ok(field("Cached:").saturating_sub(field("Shmem:")))
}

/// What a directory takes, without what is mounted in it.
fn disk_kib(directory: &Path) -> Result<u64, Failure> {
    let output = Command::new("du").args(["-s", "-x", "-k"]).arg(directory).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().ok_or("du said nothing")?.parse()?)
}

/// Waits until so many processes have read the image.
fn wait_until_read(count: usize) -> Result<(), Failure> {
    let deadline = Instant::now() + READ_MAX;
    while done() < count {
        if Instant::now() > deadline {
            return Err(format!("{} of {count} have read the image", done()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn done() -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let name = |process: std::path::PathBuf| std::fs::read_to_string(process.join("comm"));
    processes
        .filter(|entry| {
            entry.as_ref().is_ok_and(|entry| name(entry.path()).is_ok_and(|name| name.trim() == DONE))
        })
        .count()
}

//! The pool against the running kernel. Needs root.

use std::io::Write as _;

use berth_wire::quota::MIB;
use uuid::Uuid;

use super::*;

const POOL_BYTES: u64 = 256 * MIB;

struct Machine {
    shares: Shares,
    installation: Installation,
    data: tempfile::TempDir,
}

impl Machine {
    fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: the pool needs root");
            return None;
        }
        let installation = Installation::new(&format!("t-disk-{name}-{}", std::process::id())).unwrap();
        Some(Self { shares: Shares::undivided(POOL_BYTES), installation, data: tempfile::tempdir().unwrap() })
    }

    async fn open(&self) -> Disk {
        Disk::open(&self.installation, self.data.path(), self.shares).await.unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.data.path().join("pool"), rustix::mount::UnmountFlags::DETACH);
        let _ = self.installation.release();
    }
}

fn id() -> InstanceId {
    InstanceId(Uuid::now_v7())
}

/// Writes until it fails or the file has so many bytes; says how many it got.
fn fill(path: &Path, bytes_max: u64) -> (u64, Option<io::Error>) {
    let mut file = match fs::File::create(path) {
        Ok(file) => file,
        Err(error) => return (0, Some(error)),
    };
    let block = vec![7; 1 << 20];
    let mut written = 0;
    while written < bytes_max {
        if let Err(error) = file.write_all(&block).and_then(|()| file.sync_data()) {
            return (written, Some(error));
        }
        written += block.len() as u64;
    }
    (written, None)
}

#[tokio::test]
async fn a_container_must_not_write_more_than_its_limit() {
    let Some(machine) = Machine::new("limit") else { return };
    let disk = machine.open().await;
    let (greedy, modest) = (id(), id());
    let scratch = disk.create(greedy, Bounds::new(0, 8 * MIB)).await.unwrap();
    let other = disk.create(modest, Bounds::new(0, 8 * MIB)).await.unwrap();
    let (written, error) = fill(&scratch.upper.join("file"), 64 * MIB);
    assert_eq!(error.unwrap().raw_os_error(), Some(libc::EDQUOT));
    assert!((4 * MIB..=8 * MIB).contains(&written), "{written}");
    assert!(fill(&other.upper.join("file"), 4 * MIB).1.is_none());
    let (used, _) = disk.usage(greedy).unwrap();
    assert!((written..=8 * MIB).contains(&used), "{used}");
    // A new limit applies to what is there.
    disk.create(greedy, Bounds::new(0, 16 * MIB)).await.unwrap();
    assert!(fill(&scratch.upper.join("more"), 4 * MIB).1.is_none());
    disk.close().await.unwrap();
}

#[tokio::test]
async fn a_flood_of_small_files_must_stop_at_the_limit() {
    let Some(machine) = Machine::new("flood") else { return };
    let disk = machine.open().await;
    let scratch = disk.create(id(), Bounds::new(0, 4 * MIB)).await.unwrap();
    let made =
        (0..100_000).take_while(|n| fs::write(scratch.upper.join(n.to_string()), [1; 1_000]).is_ok()).count();
    assert!(made < 20_000, "{made}");
    disk.close().await.unwrap();
}

#[tokio::test]
async fn what_a_crash_left_mounted_must_be_taken_over_and_closing_must_detach_all() {
    let Some(machine) = Machine::new("again") else { return };
    let disk = machine.open().await;
    let kept = id();
    let scratch = disk.create(kept, Bounds::new(0, 8 * MIB)).await.unwrap();
    fs::write(scratch.upper.join("file"), "content").unwrap();
    drop(disk);
    let disk = machine.open().await;
    assert_eq!(disk.list().unwrap(), [kept]);
    disk.close().await.unwrap();
    disk.close().await.unwrap();
    let image = machine.data.path().join("pool.img");
    assert_eq!(loopback::find(&image).unwrap(), None);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image).unwrap());
    assert!(blocks * 512 >= POOL_BYTES, "the image must stay preallocated");

    // And grown.
    let disk =
        Disk::open(&machine.installation, machine.data.path(), Shares::undivided(POOL_BYTES + 64 * MIB))
            .await
            .unwrap();
    assert_eq!(disk.get(kept).unwrap(), scratch);
    assert_eq!(fs::read_to_string(scratch.upper.join("file")).unwrap(), "content");
    assert_eq!(disk.space().unwrap().0, POOL_BYTES + 64 * MIB);
    disk.remove(kept).await.unwrap();
    disk.remove(kept).await.unwrap();
    assert_eq!(disk.list().unwrap(), []);
    assert_eq!(disk.get(kept), None);
    disk.close().await.unwrap();
}

#[tokio::test]
async fn a_full_pool_must_be_named() {
    let Some(machine) = Machine::new("full") else { return };
    let disk = machine.open().await;
    let scratch = disk.create(id(), Bounds::new(0, 1 << 40)).await.unwrap();
    let (_, error) = fill(&scratch.upper.join("file"), 2 * POOL_BYTES);
    let error = io_error("write", &scratch.upper)(error.unwrap());
    assert!(matches!(error, DiskError::PoolFull(_)) && error.to_string().contains("D13"), "{error}");
    disk.close().await.unwrap();
}

#[tokio::test]
async fn a_pool_the_host_has_no_room_for_must_be_refused_and_leave_nothing() {
    let Some(machine) = Machine::new("host") else { return };
    let error =
        Disk::open(&machine.installation, machine.data.path(), Shares::undivided(1 << 43)).await.unwrap_err();
    assert!(matches!(error, DiskError::HostFull { .. } | DiskError::Io { .. }), "{error}");
    assert!(
        !machine.data.path().join("pool.img").exists() && !machine.data.path().join("pool.img.new").exists()
    );
    let error =
        Disk::open(&machine.installation, machine.data.path(), Shares::undivided(MIB)).await.unwrap_err();
    assert!(matches!(error, DiskError::PoolTooSmall(_)), "{error}");
}

#[tokio::test]
async fn a_space_handed_over_must_have_the_new_name_and_limit() {
    let Some(machine) = Machine::new("ahead") else { return };
    let disk = machine.open().await;
    let (ahead, container) = (id(), id());
    disk.create(ahead, Bounds::new(0, 64 * MIB)).await.unwrap();
    let scratch = disk.hand_over(ahead, container, Bounds::new(0, 8 * MIB)).unwrap();
    assert_eq!((disk.get(ahead), disk.get(container)), (None, Some(scratch.clone())));
    let (_, error) = fill(&scratch.upper.join("file"), 64 * MIB);
    assert_eq!(error.unwrap().raw_os_error(), Some(libc::EDQUOT));
    assert!(disk.usage(ahead).is_err() && disk.usage(container).unwrap().1 == 8 * MIB);
    disk.remove(container).await.unwrap();
    assert_eq!(disk.list().unwrap(), []);
    disk.close().await.unwrap();
}

/// Writers that fill what they get, limits set anew in between, until nobody gets anything more.
fn fill_all(disk: &Disk, spaces: &[Scratch]) -> u64 {
    let mut files: Vec<_> =
        spaces.iter().map(|space| fs::File::create(space.upper.join("filler")).unwrap()).collect();
    let block = vec![7; 256 << 10];
    let mut total = 0;
    loop {
        let mut written = 0;
        for file in &mut files {
            while file.write_all(&block).is_ok() {
                written += block.len() as u64;
            }
        }
        disk.pool.spaces().rebalance().unwrap();
        total += written;
        if written < MIB {
            return total;
        }
    }
}

#[tokio::test]
async fn whoever_fills_the_pool_must_leave_others_their_floors_a_start_and_an_import() {
    let Some(mut machine) = Machine::new("floors") else { return };
    machine.shares = Shares::divided(1_024 * MIB);
    let disk = machine.open().await;
    let shares = *disk.shares();
    let quota = Bounds::new(16 * MIB, 1_024 * MIB);
    let quiet = disk.create(id(), quota).await.unwrap();
    let mut fillers = Vec::new();
    for _ in 0..6 {
        fillers.push(disk.create(id(), quota).await.unwrap());
    }
    let burst = shares.burst_bytes.unwrap();
    // All six begin at once and are faster than limits are set anew: the worst there is.
    let written = fill_all(&disk, &fillers);
    let set_aside = (shares.pool_bytes - 2 * shares.floors_bytes - burst) / 2;
    let most = burst + 6 * quota.floor + set_aside;
    assert!(written <= most && written > burst / 10 * 9, "{written} of {most}");
    assert_eq!(disk.burst_left().map(|left| left < 8 * MIB), Some(true));
    // One that was there before, one that comes now, and one that comes when another agent has taken over.
    let floor_written = |space: &Scratch| fill(&space.upper.join("file"), 15 * MIB).1.map(|e| e.to_string());
    assert_eq!(floor_written(&quiet), None);
    let newcomer = disk.create(id(), quota).await.unwrap();
    assert_eq!(floor_written(&newcomer), None);
    drop(disk);
    let disk = machine.open().await;
    let late = id();
    assert_eq!(floor_written(&disk.create(late, quota).await.unwrap()), None);
    assert!(fill(&fillers[0].upper.join("again"), 8 * MIB).1.is_some(), "a filler got more");
    // A layer, as large as layers may become.
    let layer = disk.layers_dir().join("layer");
    btrfs::subvolume_create(&layer).unwrap();
    count_as_layer(&layer);
    let (imported, error) = fill(&layer.join("file"), 2 * POOL_BYTES);
    let most = shares.layers_bytes.unwrap();
    assert!(imported <= most && imported > most / 10 * 9, "{imported} of {most}");
    assert_eq!(error.unwrap().raw_os_error(), Some(libc::EDQUOT));
    // With everything that may be full being full, one more comes, and one that was built becomes a layer.
    let built = id();
    let scratch = disk.create(built, quota).await.unwrap();
    assert_eq!(floor_written(&scratch), None);
    let before = disk.layers_used().unwrap();
    disk.leave_to_layers(built);
    let kept = disk.layers_dir().join("kept");
    fs::rename(&scratch.dir, &kept).unwrap();
    turn_into_layer(&kept);
    assert!(disk.layers_used().unwrap() >= before + 15 * MIB);
    assert!(disk.usage(built).is_err());
    // What a filler gives back others may take.
    for filler in &fillers[1..5] {
        fs::remove_file(filler.upper.join("filler")).unwrap();
    }
    rustix::fs::syncfs(fs::File::open(&fillers[1].dir).unwrap()).unwrap();
    disk.pool.spaces().rebalance().unwrap();
    assert_eq!(fill(&fillers[0].upper.join("again"), 8 * MIB).1.map(|e| e.to_string()), None);
    assert!(disk.usage(late).unwrap().0 >= 15 * MIB);
    disk.close().await.unwrap();
}

#[tokio::test]
async fn what_was_just_written_must_count() {
    let Some(machine) = Machine::new("lag") else { return };
    let disk = machine.open().await;
    let writer = id();
    let scratch = disk.create(writer, Bounds::new(0, 64 * MIB)).await.unwrap();
    fs::write(scratch.upper.join("file"), vec![7; 8 << 20]).unwrap();
    let (used, limit) = disk.usage(writer).unwrap();
    assert!(used >= 8 * MIB && limit == 64 * MIB, "{used} of {limit}");
    disk.close().await.unwrap();
}

#[tokio::test]
async fn the_image_must_be_its_owner_s_alone() {
    let Some(machine) = Machine::new("mode") else { return };
    let image = machine.data.path().join("pool.img");
    let mode = || std::os::unix::fs::MetadataExt::mode(&fs::metadata(&image).unwrap()) & 0o777;
    machine.open().await.close().await.unwrap();
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    machine.open().await.close().await.unwrap();
    assert_eq!(mode(), 0o600);
}

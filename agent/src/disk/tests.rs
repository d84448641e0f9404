//! The pool against the running kernel. Needs root.

use std::io::Write as _;

use berth_wire::quota::MIB;
use uuid::Uuid;

use super::*;

const POOL_BYTES: u64 = 256 * MIB;

struct Machine {
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
        Some(Self { installation, data: tempfile::tempdir().unwrap() })
    }

    async fn open(&self) -> Disk {
        Disk::open(&self.installation, self.data.path(), POOL_BYTES).await.unwrap()
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
    let mut file = fs::File::create(path).unwrap();
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
    let scratch = disk.create(greedy, 8 * MIB).await.unwrap();
    let other = disk.create(modest, 8 * MIB).await.unwrap();
    let (written, error) = fill(&scratch.upper.join("file"), 64 * MIB);
    assert_eq!(error.unwrap().raw_os_error(), Some(libc::EDQUOT));
    assert!((4 * MIB..=8 * MIB).contains(&written), "{written}");
    assert!(fill(&other.upper.join("file"), 4 * MIB).1.is_none());
    let used = disk.usage(greedy).unwrap();
    assert!((written..=8 * MIB).contains(&used), "{used}");
    // A new limit applies to what is there.
    disk.create(greedy, 16 * MIB).await.unwrap();
    assert!(fill(&scratch.upper.join("more"), 4 * MIB).1.is_none());
    disk.close().await.unwrap();
}

#[tokio::test]
async fn a_flood_of_small_files_must_stop_at_the_limit() {
    let Some(machine) = Machine::new("flood") else { return };
    let disk = machine.open().await;
    let scratch = disk.create(id(), 4 * MIB).await.unwrap();
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
    let scratch = disk.create(kept, 8 * MIB).await.unwrap();
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
    let disk = Disk::open(&machine.installation, machine.data.path(), POOL_BYTES + 64 * MIB).await.unwrap();
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
    let scratch = disk.create(id(), 1 << 40).await.unwrap();
    let (_, error) = fill(&scratch.upper.join("file"), 2 * POOL_BYTES);
    let error = io_error("write", &scratch.upper)(error.unwrap());
    assert!(matches!(error, DiskError::PoolFull(_)) && error.to_string().contains("D13"), "{error}");
    disk.close().await.unwrap();
}

#[tokio::test]
async fn a_pool_the_host_has_no_room_for_must_be_refused_and_leave_nothing() {
    let Some(machine) = Machine::new("host") else { return };
    let error = Disk::open(&machine.installation, machine.data.path(), 1 << 43).await.unwrap_err();
    assert!(matches!(error, DiskError::HostFull { .. } | DiskError::Io { .. }), "{error}");
    assert!(
        !machine.data.path().join("pool.img").exists() && !machine.data.path().join("pool.img.new").exists()
    );
    let error = Disk::open(&machine.installation, machine.data.path(), MIB).await.unwrap_err();
    assert!(matches!(error, DiskError::PoolTooSmall(_)), "{error}");
}

#[tokio::test]
async fn a_space_handed_over_must_have_the_new_name_and_limit() {
    let Some(machine) = Machine::new("ahead") else { return };
    let disk = machine.open().await;
    let (ahead, container) = (id(), id());
    disk.create(ahead, 64 * MIB).await.unwrap();
    let scratch = disk.hand_over(ahead, container, Some(8 * MIB)).unwrap();
    assert_eq!((disk.get(ahead), disk.get(container)), (None, Some(scratch.clone())));
    let (_, error) = fill(&scratch.upper.join("file"), 64 * MIB);
    assert_eq!(error.unwrap().raw_os_error(), Some(libc::EDQUOT));
    disk.remove(container).await.unwrap();
    assert_eq!(disk.list().unwrap(), []);
    disk.close().await.unwrap();
}

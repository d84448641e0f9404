//! The image store with the real unpacker, on a real pool, against a registry that the test plays. Needs root.

#![allow(clippy::unwrap_used, reason = "outside #[test] functions, too, all of this is test")]

mod hostile;
mod registry;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use berth_agent::disk::Disk;
use berth_agent::disk::shares::Shares;
use berth_agent::image::{ImageError, Images, ImagesConfig, Layer, Registry};
use berth_agent::installation::Installation;
use berth_wire::digest::Digest;
use berth_wire::id::InstanceId;
use berth_wire::image::ImageRef;
use berth_wire::quota::{Bounds, MIB};
use oci_spec::image::ImageConfiguration;
use registry::{Shared, routes};
use tar::{Builder, EntryType, Header};

/// An installation with a pool, a store and a registry; gone when dropped.
struct Machine {
    installation: Installation,
    data: tempfile::TempDir,
    disk: Disk,
    images: Images,
    held: Shared,
    registry: Registry,
}

impl Machine {
    async fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: the image store needs root");
            return None;
        }
        let installation = Installation::new(&format!("t-img-{name}-{}", std::process::id())).unwrap();
        let data = tempfile::tempdir().unwrap();
        let disk = Disk::open(&installation, data.path(), Shares::undivided(256 * MIB)).await.unwrap();
        let images = open(&installation, disk.layers_dir()).await;
        let held = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, routes(held.clone())).into_future());
        let registry = Registry { base_url, token: "token".into() };
        Some(Self { installation, data, disk, images, held, registry })
    }

    /// A second store, as another host has.
    async fn other_host(&self) -> Images {
        let dir = self.data.path().join(format!("pool/other-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&dir).unwrap();
        open(&self.installation, dir).await
    }

    /// The upper directory of a container that ran.
    async fn upper(&self) -> PathBuf {
        let scratch =
            self.disk.create(InstanceId(uuid::Uuid::now_v7()), Bounds::new(0, 8 * MIB)).await.unwrap();
        fs::create_dir(scratch.work.join("work")).unwrap();
        scratch.upper
    }

    fn count(&self, what: &str) -> usize {
        self.held.lock().unwrap().log.iter().filter(|line| line.starts_with(what)).count()
    }

    fn left_in_tmp(&self) -> usize {
        fs::read_dir(self.disk.layers_dir().join("tmp")).unwrap().count()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let pool = self.data.path().join("pool");
        let unmounted = rustix::mount::unmount(&pool, rustix::mount::UnmountFlags::DETACH);
        assert!(unmounted.is_ok() || std::thread::panicking());
        let _ = self.installation.release();
    }
}

async fn open(installation: &Installation, layers_dir: PathBuf) -> Images {
    let unpacker = PathBuf::from(env!("CARGO_BIN_EXE_berth-agent"));
    Images::open(installation, ImagesConfig { layers_dir, unpacker, bytes_max: 1 << 30 }).await.unwrap()
}

fn entry(builder: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, owner: u64, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, path, content).unwrap();
}

fn ordinary_tar() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    entry(&mut builder, "etc/", EntryType::Directory, 0, b"");
    entry(&mut builder, "etc/tool", EntryType::Regular, 0, b"content");
    entry(&mut builder, "home/user/", EntryType::Directory, 1_000, b"");
    entry(&mut builder, "home/user/file", EntryType::Regular, 65_535, b"mine");
    entry(&mut builder, "etc/.wh.gone", EntryType::Regular, 0, b"");
    entry(&mut builder, "home/user/.wh..wh..opq", EntryType::Regular, 0, b"");
    builder.into_inner().unwrap()
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 4];
    matches!(rustix::fs::getxattr(path, "trusted.overlay.opaque", &mut value[..]), Ok(1) if value[0] == b'y')
}

fn check_ordinary(layer: &Layer) {
    let root = &layer.path;
    let owner = |path: &str| fs::symlink_metadata(root.join(path)).unwrap().uid();
    assert_eq!((owner("etc/tool"), owner("home/user"), owner("home/user/file")), (0, 1_000, 65_535));
    assert_eq!(fs::metadata(root.join("etc/tool")).unwrap().permissions().mode() & 0o7777, 0o4755);
    assert_eq!(fs::read_to_string(root.join("home/user/file")).unwrap(), "mine");
    assert!(fs::symlink_metadata(root.join("etc/gone")).unwrap().file_type().is_char_device());
    assert!(is_opaque(&root.join("home/user")));
    assert!(!is_opaque(&root.join("etc")));
}

#[tokio::test]
async fn a_tar_must_be_unpacked_with_ids_from_zero_and_only_once() {
    let Some(machine) = Machine::new("tar").await else { return };
    let tar = ordinary_tar();
    let layer = machine.images.import_tar(tar.as_slice()).await.unwrap();
    assert_eq!(layer.diff_id, Digest::of(&tar));
    check_ordinary(&layer);
    let again = machine.images.import_tar(tar.as_slice()).await.unwrap();
    assert_eq!(again.path, layer.path);
    assert_eq!(machine.left_in_tmp(), 0);
    // And by a new agent.
    let images = open(&machine.installation, machine.disk.layers_dir()).await;
    assert_eq!(images.find_path(&layer.path).unwrap().diff_id, layer.diff_id);
}

#[tokio::test]
async fn a_refused_tar_must_leave_nothing() {
    let Some(machine) = Machine::new("refuse").await else { return };
    let mut builder = Builder::new(Vec::new());
    entry(&mut builder, "fine", EntryType::Regular, 0, b"");
    entry(&mut builder, "owner", EntryType::Regular, 70_000, b"");
    let tar = builder.into_inner().unwrap();
    let error = machine.images.import_tar(tar.as_slice()).await.unwrap_err();
    assert!(matches!(&error, ImageError::Refused(reason) if reason.contains("owner above 65535")), "{error}");
    // More than a pipe holds after the point of refusal, so that the feeder meets a closed pipe.
    let mut long = tar;
    long.extend(vec![1; 4 << 20]);
    assert!(matches!(machine.images.import_tar(long.as_slice()).await, Err(ImageError::Refused(_))));
    assert_eq!(machine.left_in_tmp(), 0);
    // The pool is smaller than this: a full disk is no fault of the archive.
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(400 * MIB);
    let noise = tokio::io::AsyncReadExt::take(tokio::io::repeat(7), 400 * MIB);
    header.set_path("large").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    builder.get_mut().extend_from_slice(header.as_bytes());
    let head = std::io::Cursor::new(builder.get_ref().clone());
    let error = machine.images.import_tar(tokio::io::AsyncReadExt::chain(head, noise)).await.unwrap_err();
    assert!(matches!(&error, ImageError::Full(_)), "{error}");
    assert_eq!(machine.left_in_tmp(), 0);
}

#[tokio::test]
async fn an_upper_must_become_a_layer_and_travel_to_another_host() {
    let Some(machine) = Machine::new("travel").await else { return };
    let base = machine.images.import_tar(ordinary_tar().as_slice()).await.unwrap();
    let upper = machine.upper().await;
    fs::create_dir_all(upper.join("app/deep")).unwrap();
    fs::write(upper.join("app/deep/file"), "built").unwrap();
    fs::hard_link(upper.join("app/deep/file"), upper.join("app/same")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", upper.join("app/link")).unwrap();
    std::os::unix::fs::chown(upper.join("app/link"), Some(7), Some(8)).ok();
    let device = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, upper.join("removed"), device, rustix::fs::Mode::empty(), 0)
        .unwrap();
    let long = "n".repeat(200);
    fs::write(upper.join(&long), "long name").unwrap();
    assert!(machine.images.find_keyed("key").is_none());
    let built = machine.images.layer_from_upper(&upper, "key").await.unwrap();
    assert!(!upper.exists());
    assert_eq!(machine.images.find_keyed("key").unwrap().path, built.path);

    let layers = [base, built];
    let config = ImageConfiguration::default();
    let image = machine.images.push(&machine.registry, "apps/one", &layers, config.clone()).await.unwrap();
    let uploads = machine.count("upload");
    assert_eq!((uploads, machine.count("mount")), (3, 2), "two layers and a configuration");
    // Nothing new to say: nothing is sent, and another app mounts.
    let again = machine.images.push(&machine.registry, "apps/one", &layers, config.clone()).await.unwrap();
    assert_eq!((again.digest, machine.count("upload")), (image.digest.clone(), uploads));
    machine.images.push(&machine.registry, "apps/two", &layers, config).await.unwrap();
    assert_eq!((machine.count("upload"), machine.count("mount")), (uploads + 1, 4));

    // Here, nothing is pulled; there, everything, by two at once only once.
    let gets = machine.count("get");
    let here = machine.images.ensure(&image, &machine.registry).await.unwrap();
    assert_eq!(machine.count("get"), gets);
    assert_eq!(here.layers, [layers[0].path.clone(), layers[1].path.clone()]);
    let other = machine.other_host().await;
    let gets = machine.count("get");
    let (first, second) =
        tokio::join!(other.ensure(&image, &machine.registry), other.ensure(&image, &machine.registry));
    let (there, same) = (first.unwrap(), second.unwrap());
    assert_eq!(there.layers, same.layers);
    let layer_pulls = machine.count("get") - gets;
    assert!(layer_pulls <= 4, "two layers, and a configuration for each: {layer_pulls}");
    check_ordinary(&there.parts[0]);
    let root = &there.layers[1];
    assert_eq!(fs::read_to_string(root.join("app/same")).unwrap(), "built");
    assert_eq!(fs::metadata(root.join("app/same")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(root.join("app/link")).unwrap(), Path::new("/etc/passwd"));
    assert!(fs::symlink_metadata(root.join("removed")).unwrap().file_type().is_char_device());
    assert_eq!(fs::read_to_string(root.join(&long)).unwrap(), "long name");
    // Without the registry, what is here still runs.
    let nowhere = Registry { base_url: "http://127.0.0.1:9".into(), token: "x".into() };
    other.ensure(&image, &nowhere).await.unwrap();
}

#[tokio::test]
async fn damaged_content_must_be_refused() {
    let Some(machine) = Machine::new("damage").await else { return };
    let layer = machine.images.import_tar(ordinary_tar().as_slice()).await.unwrap();
    let config = ImageConfiguration::default();
    let image = machine.images.push(&machine.registry, "apps/one", &[layer], config).await.unwrap();
    let blobs = machine.held.lock().unwrap().blobs.clone();
    for ((repository, digest), bytes) in &blobs {
        let mut damaged = bytes.to_vec();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        for damaged in [damaged.clone(), damaged[..last].to_vec(), [bytes, &b"x"[..]].concat()] {
            machine.held.lock().unwrap().blobs.insert((repository.clone(), digest.clone()), damaged.into());
            if repository == "apps/one" {
                // A fresh one each time: what another try has stored would not be asked for again.
                let other = machine.other_host().await;
                let error = other.ensure(&image, &machine.registry).await.unwrap_err();
                assert!(matches!(error, ImageError::Digest { .. }), "{error}");
            }
        }
        machine.held.lock().unwrap().blobs.insert((repository.clone(), digest.clone()), bytes.clone());
    }
    let other = machine.other_host().await;
    other.ensure(&image, &machine.registry).await.unwrap();
    let missing = ImageRef { digest: Digest::of(b"nothing"), ..image };
    let error = other.ensure(&missing, &machine.registry).await.unwrap_err();
    assert!(matches!(error, ImageError::Answer { status: 404, .. }), "{error}");
}

#[tokio::test]
async fn the_collector_must_spare_what_is_in_use() {
    let Some(machine) = Machine::new("collect").await else { return };
    let dir = machine.disk.layers_dir();
    let unpacker = PathBuf::from(env!("CARGO_BIN_EXE_berth-agent"));
    let config = ImagesConfig { layers_dir: dir, unpacker, bytes_max: 0 };
    let images = Images::open(&machine.installation, config).await.unwrap();
    let used = images.import_tar(ordinary_tar().as_slice()).await.unwrap();
    let upper = machine.upper().await;
    fs::write(upper.join("file"), vec![1; 1 << 20]).unwrap();
    drop(images.layer_from_upper(&upper, "unused").await.unwrap());
    assert!(images.collect().await.unwrap() >= 1 << 20);
    assert!(images.find_keyed("unused").is_none());
    check_ordinary(&used);
    let path = used.path.clone();
    drop(used);
    images.collect().await.unwrap();
    assert!(!path.exists() && images.find_path(&path).is_none());
}

/// This process's child that is an unpacker of this id range, once it has confined itself.
async fn confined_unpacker(base: u32) -> (String, String) {
    loop {
        for entry in fs::read_dir("/proc").unwrap() {
            let dir = entry.unwrap().path();
            let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
            let status = read("status");
            let ours = status.contains(&format!("\nPPid:\t{}\n", std::process::id()))
                && status.contains(&format!("\nUid:\t{base}\t{base}\t{base}\t{base}\n"));
            if ours
                && read("cmdline").contains("unpack")
                && status.contains("NoNewPrivs:\t1")
                && read_caps(&status) != FULL
            {
                let namespace = fs::read_link(dir.join("ns/net")).unwrap().display().to_string();
                return (status, namespace);
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Every capability there may be: what a process has before it drops any.
const FULL: u64 = 0x1ff_ffff_ffff;

fn read_caps(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
    u64::from_str_radix(line, 16).unwrap()
}

#[tokio::test]
async fn the_unpacker_must_have_no_privilege() {
    let Some(machine) = Machine::new("confined").await else { return };
    let (mut feed, tar) = tokio::io::duplex(1 << 20);
    let images = machine.images.clone();
    let importing = tokio::spawn(async move { images.import_tar(tar).await });
    let base = machine.installation.unpacker_uid_base();
    let (status, network) = confined_unpacker(base).await;
    // CHOWN, DAC_OVERRIDE, FOWNER and FSETID, in its own user namespace only.
    assert_eq!(read_caps(&status), 0b1_1011);
    assert!(status.contains(&format!("\nGid:\t{base}\t{base}\t{base}\t{base}\n")), "{status}");
    assert!(status.contains("\nGroups:\t \n"), "{status}");
    assert_ne!(network, fs::read_link("/proc/self/ns/net").unwrap().display().to_string());
    tokio::io::AsyncWriteExt::write_all(&mut feed, &ordinary_tar()).await.unwrap();
    drop(feed);
    check_ordinary(&importing.await.unwrap().unwrap());
}

#[tokio::test]
async fn the_documents_of_an_image_must_go_with_its_layers() {
    let Some(machine) = Machine::new("documents").await else { return };
    let layer = machine.images.import_tar(ordinary_tar().as_slice()).await.unwrap();
    let config = ImageConfiguration::default();
    machine.images.push(&machine.registry, "apps/one", &[layer], config).await.unwrap();
    let documents = machine.disk.layers_dir().join("images");
    let count = || fs::read_dir(&documents).unwrap().count();
    machine.images.collect().await.unwrap();
    assert_eq!(count(), 1);
    let unpacker = PathBuf::from(env!("CARGO_BIN_EXE_berth-agent"));
    let config = ImagesConfig { layers_dir: machine.disk.layers_dir(), unpacker, bytes_max: 0 };
    let images = Images::open(&machine.installation, config).await.unwrap();
    images.collect().await.unwrap();
    assert_eq!(count(), 0);
}

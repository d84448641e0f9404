//! The layers on disk, which of them are in use, and who goes first when room is needed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use berth_wire::digest::Digest;
use serde::{Deserialize, Serialize};

use super::{ImageError, io_error};
use crate::disk::{self, btrfs};

/// One layer that is here. It stays while a clone of this value lives.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The digest of its uncompressed tar; for a layer made here, of its key until it is pushed.
    pub diff_id: Digest,
    /// Its directory: on-disk ids from 0, overlay whiteouts.
    pub path: PathBuf,
    /// Counted, not read: more than one reference is use.
    _lease: Arc<()>,
}

impl Layer {
    pub(super) fn borrowed(root: &Path) -> Result<Self, ImageError> {
        let path = fs::canonicalize(root).map_err(io_error("resolve", root))?;
        if !path.is_dir() {
            return Err(io_error("use as a root", &path)(io::ErrorKind::NotADirectory.into()));
        }
        let diff_id = Digest::of(path.as_os_str().as_encoded_bytes());
        Ok(Self { diff_id, path, _lease: Arc::new(()) })
    }
}

/// A compressed layer in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blob {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
}

/// What is known about a layer; beside its tree as `about.json`, whose modification time is the layer's last use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct About {
    /// Unknown for a layer made here until it was packed.
    pub diff_id: Option<Digest>,
    /// What it was pulled from, or pushed as: so that it is compressed once.
    pub blob: Option<Blob>,
    /// A repository that has the blob, to mount it from.
    pub repository: Option<String>,
    /// Bytes on disk; counted when the collector first asks.
    pub bytes: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    about: About,
    lease: Arc<()>,
}

/// All layers, by the name of their directory.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    layers: Mutex<HashMap<String, Entry>>,
    /// One at a time per name: whoever comes second finds the layer made.
    making: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

const ABOUT: &str = "about.json";
const ROOT: &str = "root";

fn name_of_key(key: &str) -> String {
    format!("key-{}", Digest::of(key.as_bytes()).hex())
}

fn name_of_blob(digest: &Digest) -> String {
    format!("blob-{}", digest.hex())
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Self, ImageError> {
        for sub in ["tmp", "images"] {
            let path = dir.join(sub);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(io_error("make", &path))?;
        }
        let mut layers = HashMap::new();
        for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
            let entry = entry.map_err(io_error("list", dir))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with("blob-") || name.starts_with("key-") {
                let about = entry.path().join(ABOUT);
                let text = fs::read(&about).map_err(io_error("read", &about))?;
                // Rewritten in place when a layer is pushed; a torn one loses nothing that cannot be found out again.
                let about = serde_json::from_slice(&text).unwrap_or_default();
                layers.insert(name, Entry { about, lease: Arc::new(()) });
            }
        }
        let store = Self { dir: dir.to_owned(), layers: Mutex::new(layers), making: Mutex::default() };
        let tmp = store.dir.join("tmp");
        for entry in fs::read_dir(&tmp).map_err(io_error("list", &tmp))? {
            remove(&entry.map_err(io_error("list", &tmp))?.path())?;
        }
        Ok(store)
    }

    fn layers(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Each change under the lock is one insertion or removal: nothing is half-done after a panic.
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self, name: &str, entry: &Entry) -> Layer {
        let dir = self.dir.join(name);
        // A use that cannot be noted makes the layer look older than it is; no more.
        let _ =
            File::options().write(true).open(dir.join(ABOUT)).and_then(|f| f.set_modified(SystemTime::now()));
        let diff_id = entry.about.diff_id.clone().unwrap_or_else(|| Digest::of(name.as_bytes()));
        Layer { diff_id, path: dir.join(ROOT), _lease: entry.lease.clone() }
    }

    fn find(&self, name: &str) -> Option<Layer> {
        let layers = self.layers();
        layers.get(name).map(|entry| self.lease(name, entry))
    }

    pub(super) fn find_keyed(&self, key: &str) -> Option<Layer> {
        self.find(&name_of_key(key))
    }

    /// The layer that was unpacked from this blob, or pushed as it.
    pub(super) fn find_blob(&self, digest: &Digest) -> Option<Layer> {
        let layers = self.layers();
        let named = name_of_blob(digest);
        let pushed =
            || layers.iter().find(|(_, e)| e.about.blob.as_ref().is_some_and(|b| b.digest == *digest));
        let (name, entry) = layers.get_key_value(&named).or_else(pushed)?;
        Some(self.lease(name, entry))
    }

    pub(super) fn find_path(&self, path: &Path) -> Option<Layer> {
        let name = self.name_of(path)?;
        self.find(&name)
    }

    fn name_of(&self, path: &Path) -> Option<String> {
        let dir = path.parent().filter(|dir| dir.parent() == Some(&self.dir))?;
        Some(dir.file_name()?.to_str()?.to_owned())
    }

    /// What is known about a layer; nothing about a borrowed one.
    pub(super) fn about(&self, layer: &Layer) -> Option<About> {
        let name = self.name_of(&layer.path)?;
        self.layers().get(&name).map(|entry| entry.about.clone())
    }

    /// Changes what is known about a layer.
    pub(super) fn set_about(&self, layer: &Layer, about: About) -> Result<(), ImageError> {
        let Some(name) = self.name_of(&layer.path) else { return Ok(()) };
        write_about(&self.dir.join(&name), &about)?;
        if let Some(entry) = self.layers().get_mut(&name) {
            entry.about = about;
        }
        Ok(())
    }

    /// Keeps others from making what belongs to this digest until dropped.
    pub(super) async fn make_blob(&self, digest: &Digest) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            making.retain(|_, lock| Arc::strong_count(lock) > 1);
            making.entry(name_of_blob(digest)).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// A fresh directory to fill, on btrfs a subvolume, so that it goes in one step: returns it and the tree's root in it.
    pub(super) fn prepare(&self) -> Result<Draft, ImageError> {
        let dir = self.dir.join("tmp").join(uuid::Uuid::new_v4().to_string());
        match btrfs::subvolume_create(&dir) {
            Ok(()) => disk::count_as_layer(&dir),
            Err(_) => fs::create_dir(&dir).map_err(io_error("make directory", &dir))?,
        }
        let root = dir.join(ROOT);
        fs::DirBuilder::new().mode(0o755).create(&root).map_err(io_error("make directory", &root))?;
        Ok(Draft { dir, root })
    }

    /// A name for a file that goes with the next start at the latest.
    pub(super) fn scratch_file(&self) -> PathBuf {
        self.dir.join("tmp").join(uuid::Uuid::new_v4().to_string())
    }

    /// Where the documents of an image are.
    pub(super) fn image_dir(&self, manifest: &Digest) -> PathBuf {
        self.dir.join("images").join(manifest.hex())
    }

    /// Makes a filled directory the layer of this blob, or takes the one that is there.
    pub(super) fn publish_blob(
        &self,
        draft: Draft,
        digest: &Digest,
        about: About,
    ) -> Result<Layer, ImageError> {
        self.publish(draft, name_of_blob(digest), about)
    }

    fn publish(&self, draft: Draft, name: String, about: About) -> Result<Layer, ImageError> {
        write_about(&draft.dir, &about)?;
        let root = File::open(&draft.dir).map_err(io_error("open", &draft.dir))?;
        rustix::fs::syncfs(&root).map_err(|errno| io_error("sync", &draft.dir)(errno.into()))?;
        let path = self.dir.join(&name);
        let mut layers = self.layers();
        if let Some(present) = layers.get(&name) {
            return Ok(self.lease(&name, present));
        }
        fs::rename(&draft.dir, &path).map_err(io_error("rename to", &path))?;
        let entry = Entry { about, lease: Arc::new(()) };
        let layer = self.lease(&name, &entry);
        layers.insert(name, entry);
        Ok(layer)
    }

    /// Moves the directory that an upper is in.
    pub(super) fn adopt_upper(&self, upper: &Path, key: &str) -> Result<Layer, ImageError> {
        if let Some(present) = self.find_keyed(key) {
            return Ok(present);
        }
        let holder = upper.parent().unwrap_or(upper);
        let dir = self.scratch_file();
        match fs::rename(holder, &dir) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                return Err(ImageError::Elsewhere(upper.to_owned()));
            }
            done => done.map_err(io_error("move", holder))?,
        }
        let draft = Draft { root: dir.join(ROOT), dir };
        let moved = draft.dir.join(upper.file_name().unwrap_or_default());
        fs::rename(&moved, &draft.root).map_err(io_error("rename", &moved))?;
        for entry in fs::read_dir(&draft.dir).map_err(io_error("list", &draft.dir))? {
            let path = entry.map_err(io_error("list", &draft.dir))?.path();
            if path != draft.root {
                remove(&path)?;
            }
        }
        disk::turn_into_layer(&draft.dir);
        self.publish(draft, name_of_key(key), About::default())
    }

    /// Removes unused layers, longest unused first, until the rest fits; returns the bytes removed.
    pub(super) fn collect(&self, bytes_max: u64) -> Result<u64, ImageError> {
        let names: Vec<String> = self.layers().keys().cloned().collect();
        let mut sized = Vec::new();
        for name in names {
            let dir = self.dir.join(&name);
            let Ok(used) = fs::metadata(dir.join(ABOUT)).and_then(|meta| meta.modified()) else { continue };
            sized.push((used, self.size(&name)?, name));
        }
        sized.sort();
        let mut total: u64 = sized.iter().map(|(_, bytes, _)| bytes).sum();
        let before = total;
        for (_, bytes, name) in sized {
            if total <= bytes_max {
                break;
            }
            if self.forget_unused(&name) {
                let doomed = self.scratch_file();
                let dir = self.dir.join(&name);
                fs::rename(&dir, &doomed).map_err(io_error("remove", &dir))?;
                remove(&doomed)?;
                total -= bytes;
            }
        }
        self.collect_documents()?;
        Ok(before - total)
    }

    /// An image whose layers have gone needs the registry anyway; its documents would pile up, one set per release.
    fn collect_documents(&self) -> Result<(), ImageError> {
        let images = self.dir.join("images");
        for entry in fs::read_dir(&images).map_err(io_error("list", &images))? {
            let dir = entry.map_err(io_error("list", &images))?.path();
            let documents = ["platform.json", "manifest.json"].map(|name| fs::read(dir.join(name)));
            let manifest = documents.into_iter().flatten().next().unwrap_or_default();
            let whole =
                layers_of(&manifest).is_some_and(|layers| layers.iter().all(|layer| self.has_blob(layer)));
            if !whole {
                remove(&dir)?;
            }
        }
        Ok(())
    }

    fn has_blob(&self, digest: &Digest) -> bool {
        let layers = self.layers();
        layers.contains_key(&name_of_blob(digest))
            || layers
                .values()
                .any(|entry| entry.about.blob.as_ref().is_some_and(|blob| blob.digest == *digest))
    }

    /// Once it is out of the map nobody can take it up any more.
    fn forget_unused(&self, name: &str) -> bool {
        let mut layers = self.layers();
        let unused = layers.get(name).is_some_and(|entry| Arc::strong_count(&entry.lease) == 1);
        unused && layers.remove(name).is_some()
    }

    fn size(&self, name: &str) -> Result<u64, ImageError> {
        let dir = self.dir.join(name);
        let known = self.layers().get(name).and_then(|entry| entry.about.bytes);
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let bytes = disk_bytes(&dir)?;
        if let Some(entry) = self.layers().get_mut(name) {
            entry.about.bytes = Some(bytes);
        }
        Ok(bytes)
    }
}

/// A layer in the making; removed when dropped, unless it was published and so is elsewhere.
#[derive(Debug)]
pub(super) struct Draft {
    dir: PathBuf,
    /// The directory to fill.
    pub root: PathBuf,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What stays goes at the next start.
        let _ = remove(&self.dir);
    }
}

fn write_about(dir: &Path, about: &About) -> Result<(), ImageError> {
    let path = dir.join(ABOUT);
    let text = serde_json::to_vec(about).map_err(|error| io_error("describe", &path)(error.into()))?;
    fs::write(&path, text).map_err(io_error("write", &path))
}

/// The layers a manifest names; nothing if it is none.
fn layers_of(manifest: &[u8]) -> Option<Vec<Digest>> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    let digest = |layer: &serde_json::Value| layer["digest"].as_str()?.parse().ok();
    manifest["layers"].as_array()?.iter().map(digest).collect()
}

/// Removes a file, a tree or a subvolume; links are not followed.
fn remove(path: &Path) -> Result<(), ImageError> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.is_dir() {
        return fs::remove_file(path).map_err(io_error("remove", path));
    }
    if btrfs::subvolume_destroy(path).is_ok() {
        return Ok(());
    }
    fs::remove_dir_all(path).map_err(io_error("remove", path))
}

/// Bytes allocated below a directory. Hard links count once each: the bound is a bound on use, not an inventory.
fn disk_bytes(dir: &Path) -> Result<u64, ImageError> {
    let mut total = 0;
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let entry = entry.map_err(io_error("list", &dir))?;
            // Neither follows links.
            let meta = entry.metadata().map_err(io_error("look at", &entry.path()))?;
            total += meta.blocks() * 512;
            if meta.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(total)
}

//! Images and their layers: pulled from the control plane's registry, unpacked once, shared read-only by every
//! container of the host; made from builds' uppers without copying; pushed; collected when nobody uses them.
//!
//! ```text
//! LAYERS/blob-HEX/   pulled or imported: named by the digest of the bytes the agent itself hashed, so that a layer cannot
//!                    pass for another whatever happens in the unpacker
//!        key-HEX/    made here from an upper, named by its key
//!          root/     the tree: on-disk ids from 0, overlayfs whiteouts
//!          about.json
//!        images/HEX/ manifest and configuration of an image, by the manifest's digest
//!        tmp/        half-made; emptied at start
//! ```
//! A layer is filled under tmp/, synced and renamed: what has its name is whole. Mounting is the launcher's business, and what
//! an image says about users, ports or volumes configures nothing here.

pub mod configuration;
mod layout;
mod pack;
mod pull;
mod push;
mod registry;
mod store;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_wire::digest::Digest;
use berth_wire::image::ImageRef;
use oci_spec::image::ImageConfiguration;
use tokio::io::AsyncRead;

use crate::installation::Installation;
pub use pull::layers_named;
pub use store::Layer;
use store::Store;
pub use unpack::{Limits, Unpacked, extract_here, main as unpack_main};

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file operation failed.
    #[error("image: {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The archive breaks a rule.
    #[error("image: a layer is refused: {0}")]
    Refused(String),
    /// No room for the layer.
    #[error("image: no room for a layer at {}; remove apps or images, or enlarge pool_bytes (D13)", .0.display())]
    Full(PathBuf),
    /// The unpacker itself failed.
    #[error("image: the unpacker failed: {0}")]
    Unpacker(String),
    /// The archive's source broke off.
    #[error("image: reading a layer: {0}")]
    Source(io::Error),
    /// The registry did not answer.
    #[error("image: {url}: {source}; is the control plane reachable?")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why there is no answer.
        source: reqwest::Error,
    },
    /// The registry refused.
    #[error("image: {url}: the registry answers {status}")]
    Answer {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// Content is not what its digest says.
    #[error("image: {what} has the digest {found} instead of {wanted}: it was damaged or forged on its way")]
    Digest {
        /// Which content.
        what: &'static str,
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// A document cannot be understood.
    #[error("image: {what} of {of}: {reason}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// Of which image or layer.
        of: String,
        /// What is wrong.
        reason: String,
    },
    /// The upper is not where layers are kept.
    #[error("image: {} is not on the same file system as the layers, so it cannot be moved there", .0.display())]
    Elsewhere(PathBuf),
    /// The task was cancelled because the process ends.
    #[error("image: interrupted")]
    Interrupted,
}

/// Why something failed, for a file operation that did.
impl ImageError {
    /// For people who do not run the host: without its paths and addresses.
    pub fn for_outsiders(&self) -> String {
        match self {
            Self::Io { action, source, .. } => format!("the host could not {action} it: {source}"),
            Self::Full(_) => "no space left on the host".to_owned(),
            Self::Refused(why) => why.clone(),
            Self::Unpacker(_) | Self::Elsewhere(_) => "the host failed at it".to_owned(),
            Self::Source(source) => format!("reading it broke off: {}", source.kind()),
            Self::Unreachable { .. } => "the registry cannot be reached".to_owned(),
            Self::Answer { status, .. } => format!("the registry answers {status}"),
            Self::Digest { what, .. } => format!("{what} was damaged on its way"),
            Self::Malformed { what, .. } => format!("{what} cannot be understood"),
            Self::Interrupted => "it was interrupted".to_owned(),
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::Full(path),
        _ => ImageError::Io { action, path, source },
    }
}

/// How the control plane's registry is reached.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Such as `http://127.0.0.1:8080`; `/v2/…` is appended.
    pub base_url: String,
    /// The bearer token.
    pub token: secrecy::SecretString,
}

/// An image that is here in full. Its layers stay while a clone of this value lives.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its layers' directories, lowest first.
    pub layers: Vec<PathBuf>,
    /// The same, as layers.
    pub parts: Vec<Layer>,
    /// What it says about itself.
    pub config: ImageConfiguration,
}

/// How [`Images::open`] is set up.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// Where layers go; on the pool, so that an upper can be moved there. No other process may use it.
    pub layers_dir: PathBuf,
    /// The program whose `unpack` subcommand unpacks: the agent itself.
    pub unpacker: PathBuf,
    /// Unused layers are removed, oldest use first, while all together take more than this.
    pub bytes_max: u64,
}

/// The layers and images of a host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    unpacker: PathBuf,
    uid_base: u32,
    bytes_max: u64,
    http: reqwest::Client,
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ImageError::Interrupted)?
}

impl Images {
    /// Opens the store and removes what a crash left half-made.
    ///
    /// # Errors
    /// An unusable directory.
    pub async fn open(installation: &Installation, config: ImagesConfig) -> Result<Self, ImageError> {
        let dir = config.layers_dir.clone();
        let store = Arc::new(blocking(move || Store::open(&dir)).await?);
        let http = registry::client()?;
        let ImagesConfig { unpacker, bytes_max, .. } = config;
        let uid_base = installation.unpacker_uid_base();
        Ok(Self { inner: Arc::new(Inner { store, unpacker, uid_base, bytes_max, http }) })
    }

    /// Unpacks one tar (plain, gzip or zstd) as a layer; one that is here already is not unpacked again.
    ///
    /// # Errors
    /// A tar that is refused, a full pool.
    pub async fn import_tar(&self, tar: impl AsyncRead + Send + Unpin) -> Result<Layer, ImageError> {
        self.inner.import(tar).await
    }

    /// Takes an existing directory tree, such as a prebuilt root, as a layer without copying. It is not the store's: never collected.
    ///
    /// # Errors
    /// Not a directory.
    pub fn borrow_directory(&self, root: &Path) -> Result<Layer, ImageError> {
        Layer::borrowed(root)
    }

    /// Pulls what is missing of an image. Needs no registry if nothing is.
    ///
    /// # Errors
    /// A registry that is not reachable, content that is not what its digest says, a refused layer.
    pub async fn ensure(&self, image: &ImageRef, registry: &Registry) -> Result<Image, ImageError> {
        self.inner.ensure(image, registry).await
    }

    /// As [`Images::ensure`], from a directory that is an OCI image layout; none if it is not.
    ///
    /// # Errors
    /// As there; what the layout lacks cannot be had elsewhere.
    pub async fn ensure_layout(&self, dir: &Path) -> Result<Option<Image>, ImageError> {
        if !layout::Layout::is_at(dir) {
            return Ok(None);
        }
        self.inner.ensure_layout(dir).await.map(Some)
    }

    /// Makes a container's upper directory (unmounted, its processes gone) a layer under a key, by moving the directory
    /// it is in, with its subvolume and everything else in it removed. If the key has a layer already, that one is the answer.
    ///
    /// # Errors
    /// Not on the pool.
    pub async fn layer_from_upper(&self, upper: &Path, key: &str) -> Result<Layer, ImageError> {
        let (inner, upper, key) = (self.inner.clone(), upper.to_owned(), key.to_owned());
        blocking(move || inner.store.adopt_upper(&upper, &key)).await
    }

    /// The layer that was made under a key, if it is still here.
    pub fn find_keyed(&self, key: &str) -> Option<Layer> {
        self.inner.store.find_keyed(key)
    }

    /// The layer with this directory: how a new agent holds on to the layers of containers that it found running.
    pub fn find_path(&self, path: &Path) -> Option<Layer> {
        self.inner.store.find_path(path)
    }

    /// Pushes what the registry lacks of these layers (lowest first) and an image of them; `config`'s rootfs is filled in.
    /// The image is then here as well, so that running it pulls nothing.
    ///
    /// # Errors
    /// A registry that is not reachable or refuses.
    pub async fn push(
        &self,
        registry: &Registry,
        repository: &str,
        layers: &[Layer],
        config: ImageConfiguration,
    ) -> Result<ImageRef, ImageError> {
        self.inner.push(registry, repository, layers, config).await
    }

    /// Removes unused layers while all together are over the bound; says how many bytes went. To be called when the
    /// containers found at start have their layers held.
    ///
    /// # Errors
    /// A refused removal.
    pub async fn collect(&self) -> Result<u64, ImageError> {
        let inner = self.inner.clone();
        blocking(move || inner.store.collect(inner.bytes_max)).await
    }
}

//! Images and layers. Skeleton of the names; filled next.

use std::path::{Path, PathBuf};

use berth_wire::digest::Digest;
use berth_wire::image::ImageRef;
use oci_spec::image::ImageConfiguration;

use crate::installation::Installation;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file operation failed.
    #[error("image: {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
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

/// One layer that is here. It stays while a clone of this value lives.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The digest of its uncompressed tar; for a layer made here, of its key until it is pushed.
    pub diff_id: Digest,
    /// Its directory: on-disk ids from 0, overlay whiteouts.
    pub path: PathBuf,
}

/// How [`Images::open`] is set up.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// Where layers go; on the pool, so that an upper can be moved there.
    pub layers_dir: PathBuf,
    /// The program whose `unpack` subcommand unpacks: the agent itself.
    pub unpacker: PathBuf,
    /// Unused layers are removed, oldest use first, while all together take more than this.
    pub bytes_max: u64,
}

/// The layers and images of a host.
#[derive(Debug)]
pub struct Images {}

impl Images {
    /// Opens the store and removes what a crash left half-made.
    ///
    /// # Errors
    /// An unusable directory.
    pub async fn open(_installation: &Installation, _config: ImagesConfig) -> Result<Self, ImageError> {
        unimplemented!()
    }
    /// Unpacks one tar (plain, gzip or zstd) as a layer.
    ///
    /// # Errors
    /// A tar that is refused, a full pool.
    pub async fn import_tar(
        &self,
        _tar: impl tokio::io::AsyncRead + Send + Unpin + 'static,
    ) -> Result<Layer, ImageError> {
        unimplemented!()
    }
    /// Takes an existing directory tree, such as a prebuilt root, as a layer without copying; it is not removed by the collector.
    ///
    /// # Errors
    /// Not a directory.
    pub fn borrow_directory(&self, _root: &Path) -> Result<Layer, ImageError> {
        unimplemented!()
    }
    /// Pulls what is missing of an image.
    ///
    /// # Errors
    /// A registry that is not reachable, content that is not what its digest says, a refused layer.
    pub async fn ensure(&self, _image: &ImageRef, _registry: &Registry) -> Result<Image, ImageError> {
        unimplemented!()
    }
    /// Makes an (unmounted) container's upper directory a layer under a key, by moving its whole subvolume.
    ///
    /// # Errors
    /// Not on the pool.
    pub async fn layer_from_upper(&self, _upper: &Path, _key: &str) -> Result<Layer, ImageError> {
        unimplemented!()
    }
    /// The layer that was made under a key, if it is still here.
    pub fn find_keyed(&self, _key: &str) -> Option<Layer> {
        unimplemented!()
    }
    /// Pushes what the registry lacks of these layers (lowest first) and an image of them; `config`'s rootfs is filled in.
    ///
    /// # Errors
    /// A registry that is not reachable or refuses.
    pub async fn push(
        &self,
        _registry: &Registry,
        _repository: &str,
        _layers: &[Layer],
        _config: ImageConfiguration,
    ) -> Result<ImageRef, ImageError> {
        unimplemented!()
    }
    /// Removes unused layers while all together are over the bound; says how many bytes went.
    ///
    /// # Errors
    /// A refused removal.
    pub async fn collect(&self) -> Result<u64, ImageError> {
        unimplemented!()
    }
}

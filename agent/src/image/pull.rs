//! From the registry to the store: documents, then the layers that are missing, each verified before it gets its name.

use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use berth_wire::digest::Digest;
use berth_wire::image::ImageRef;
use futures_util::{StreamExt as _, TryStreamExt as _};
use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::layout::Layout;
use super::registry::Repository;
use super::store::{About, Blob, Layer};
use super::{Image, ImageError, Inner, Limits, Registry, blocking, io_error, unpack};

/// Layers pulled at once: the second downloads while the first is unpacked.
const PULLS_MAX: usize = 2;
/// OCI sets no bound on layers; overlayfs takes 500, mount options of one page fewer.
const LAYERS_MAX: usize = 128;

/// What is read of a manifest (OCI image spec, manifest.md) or index (image-index.md).
#[derive(Debug, Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: Digest,
    size: u64,
    #[serde(default)]
    media_type: String,
    platform: Option<Platform>,
}

/// What an index names, for whoever looks for the only image of a layout.
#[derive(Debug, Deserialize)]
pub(super) struct Descriptors {
    manifests: Vec<Descriptor>,
}

impl Descriptors {
    pub(super) fn only(&self) -> Option<Digest> {
        let [only] = self.manifests.as_slice() else { return None };
        Some(only.digest.clone())
    }
}

/// The layers that a manifest names, with their sizes.
///
/// # Errors
/// What is no manifest.
pub fn layers_named(manifest: &[u8]) -> Result<Vec<(Digest, u64)>, serde_json::Error> {
    let manifest: Manifest = serde_json::from_slice(manifest)?;
    Ok(manifest.layers.into_iter().map(|layer| (layer.digest, layer.size)).collect())
}

/// Where an image comes from.
#[derive(Debug)]
pub(super) enum Origin<'a> {
    Registry(Repository<'a>),
    Layout(Layout),
}

impl Origin<'_> {
    async fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        match self {
            Self::Registry(repository) => repository.manifest(digest).await,
            Self::Layout(layout) => layout.small("manifest", digest),
        }
    }

    async fn small_blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        match self {
            Self::Registry(repository) => repository.small_blob(digest).await,
            Self::Layout(layout) => layout.small("configuration", digest),
        }
    }

    async fn blob(&self, digest: &Digest) -> Result<Box<dyn AsyncRead + Send + Unpin>, ImageError> {
        Ok(match self {
            Self::Registry(repository) => Box::new(repository.blob(digest).await?),
            Self::Layout(layout) => Box::new(tokio::fs::File::from_std(layout.blob(digest)?)),
        })
    }

    /// A repository that has its blobs.
    fn repository(&self) -> Option<String> {
        match self {
            Self::Registry(repository) => Some(repository.name.to_owned()),
            Self::Layout(_) => None,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// The machine's name in OCI (GOARCH).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Inner {
    pub(super) async fn import(&self, tar: impl AsyncRead + Send + Unpin) -> Result<Layer, ImageError> {
        let mut source = Verified { inner: tar, hasher: Sha256::new(), bytes: 0 };
        let draft = self.store.prepare()?;
        let unpacked = unpack::unpack(&self.unpacker, self.uid_base, &draft.root, &mut source).await?;
        let (digest, _) = source.finish().await?;
        unpack::mark_opaque(&draft.root, &unpacked.opaque)
            .map_err(io_error("mark opaque in", &draft.root))?;
        let about = About { diff_id: Some(unpacked.diff_id), ..About::default() };
        let store = self.store.clone();
        blocking(move || store.publish_blob(draft, &digest, about)).await
    }

    pub(super) async fn ensure(&self, image: &ImageRef, registry: &Registry) -> Result<Image, ImageError> {
        let repository = Repository { http: &self.http, registry, name: &image.repository };
        self.ensure_from(&Origin::Registry(repository), &image.digest).await
    }

    pub(super) async fn ensure_layout(&self, dir: &Path) -> Result<Image, ImageError> {
        let layout = Layout::open(dir)?;
        let digest = layout.digest()?;
        self.ensure_from(&Origin::Layout(layout), &digest).await
    }

    async fn ensure_from(&self, origin: &Origin<'_>, digest: &Digest) -> Result<Image, ImageError> {
        let dir = self.store.image_dir(digest);
        let of = digest.to_string();
        let mut manifest = self.manifest(origin, &dir, "manifest.json", digest).await?;
        if manifest.config.is_none() {
            let ours = manifest.manifests.iter().find(|candidate| {
                candidate
                    .platform
                    .as_ref()
                    .is_some_and(|p| p.os == "linux" && p.architecture == architecture())
            });
            let reason = format!("it has no image for linux/{}", architecture());
            let ours = ours.ok_or_else(|| ImageError::Malformed { what: "index", of: of.clone(), reason })?;
            let digest = ours.digest.clone();
            manifest = self.manifest(origin, &dir, "platform.json", &digest).await?;
        }
        let malformed =
            |what, reason: &str| ImageError::Malformed { what, of: of.clone(), reason: reason.to_owned() };
        let config = manifest.config.ok_or_else(|| malformed("manifest", "it names no configuration"))?;
        if manifest.layers.is_empty() || manifest.layers.len() > LAYERS_MAX {
            return Err(malformed("manifest", "it has no layers or more than 128"));
        }
        let config =
            self.document(&dir, "config.json", &config.digest, origin.small_blob(&config.digest)).await?;
        let config: ImageConfiguration = serde_json::from_slice(&config)
            .map_err(|error| malformed("configuration", &error.to_string()))?;
        let diff_ids = config.rootfs().diff_ids().clone();
        if diff_ids.len() != manifest.layers.len() {
            return Err(malformed("configuration", "it names another number of layers than the manifest"));
        }
        let wanted = manifest.layers.into_iter().zip(diff_ids);
        let pulls = wanted.map(|(blob, diff_id)| self.layer_of(origin, blob, diff_id, of.clone()));
        let parts: Vec<Layer> = futures_util::stream::iter(pulls).buffered(PULLS_MAX).try_collect().await?;
        Ok(Image { layers: parts.iter().map(|layer| layer.path.clone()).collect(), parts, config })
    }

    async fn manifest(
        &self,
        origin: &Origin<'_>,
        dir: &Path,
        name: &'static str,
        digest: &Digest,
    ) -> Result<Manifest, ImageError> {
        let bytes = self.document(dir, name, digest, origin.manifest(digest)).await?;
        serde_json::from_slice(&bytes).map_err(|error| ImageError::Malformed {
            what: "manifest",
            of: digest.to_string(),
            reason: error.to_string(),
        })
    }

    /// A document from the store, if it is there and whole, or else from the registry.
    async fn document(
        &self,
        dir: &Path,
        name: &'static str,
        digest: &Digest,
        fetch: impl Future<Output = Result<Vec<u8>, ImageError>>,
    ) -> Result<Vec<u8>, ImageError> {
        let path = dir.join(name);
        if let Ok(bytes) = fs::read(&path)
            && Digest::of(&bytes) == *digest
        {
            return Ok(bytes);
        }
        let bytes = fetch.await?;
        fs::create_dir_all(dir).map_err(io_error("make directory", dir))?;
        fs::write(&path, &bytes).map_err(io_error("write", &path))?;
        Ok(bytes)
    }

    /// A layer that is what the configuration says, too.
    async fn layer_of(
        &self,
        origin: &Origin<'_>,
        blob: Descriptor,
        diff_id: String,
        of: String,
    ) -> Result<Layer, ImageError> {
        let layer = self.layer(origin, &blob).await?;
        if layer.diff_id.as_str() == diff_id {
            return Ok(layer);
        }
        let reason = format!("layer {} has the diff id {} instead of {diff_id}", blob.digest, layer.diff_id);
        Err(ImageError::Malformed { what: "configuration", of, reason })
    }

    async fn layer(&self, origin: &Origin<'_>, wanted: &Descriptor) -> Result<Layer, ImageError> {
        let _making = self.store.make_blob(&wanted.digest).await;
        if let Some(present) = self.store.find_blob(&wanted.digest) {
            return Ok(present);
        }
        let bytes_max = Limits::default().bytes_max;
        if wanted.size > bytes_max {
            return Err(ImageError::Refused(format!("{} has more than {bytes_max} bytes", wanted.digest)));
        }
        let body = origin.blob(&wanted.digest).await?;
        // One byte more than it should have is enough to know that it is another.
        let mut source = Verified { inner: body.take(wanted.size + 1), hasher: Sha256::new(), bytes: 0 };
        let draft = self.store.prepare()?;
        let unpacked = unpack::unpack(&self.unpacker, self.uid_base, &draft.root, &mut source).await;
        let (found, size) = source.finish().await?;
        if found != wanted.digest || size != wanted.size {
            return Err(ImageError::Digest { what: "a layer", wanted: wanted.digest.clone(), found });
        }
        let unpacked = unpacked?;
        unpack::mark_opaque(&draft.root, &unpacked.opaque)
            .map_err(io_error("mark opaque in", &draft.root))?;
        let blob = Blob { digest: found.clone(), size, media_type: wanted.media_type.clone() };
        let about = About {
            diff_id: Some(unpacked.diff_id),
            blob: Some(blob),
            repository: origin.repository(),
            bytes: None,
        };
        let store = self.store.clone();
        blocking(move || store.publish_blob(draft, &found, about)).await
    }
}

/// Hashes and counts what is read through it.
struct Verified<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
}

impl<R: AsyncRead + Unpin> Verified<R> {
    /// Reads what nobody has read (an unpacker that refused stops early) and says what it was.
    async fn finish(mut self) -> Result<(Digest, u64), ImageError> {
        let mut rest = vec![0; 128 << 10];
        while self.read(&mut rest).await.map_err(ImageError::Source)? > 0 {}
        Ok((Digest::from_hasher(self.hasher), self.bytes))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Verified<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let new = &buffer.filled()[before..];
        self.hasher.update(new);
        self.bytes += new.len() as u64;
        polled
    }
}

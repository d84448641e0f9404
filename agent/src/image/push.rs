//! From the store to the registry. A layer is packed and uploaded once, into the repository `layers` that all hosts share,
//! and mounted from there into the image's repository; what the registry has is not sent again.

use std::fs::{self, File};

use berth_wire::digest::Digest;
use berth_wire::image::ImageRef;
use oci_spec::image::{ImageConfiguration, RootFsBuilder};
use serde_json::json;

use super::registry::Repository;
use super::store::{About, Blob, Layer};
use super::{ImageError, Inner, Registry, blocking, io_error, pack};

/// Where layers made by builds are uploaded to.
const SHARED: &str = "layers";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

impl Inner {
    pub(super) async fn push(
        &self,
        registry: &Registry,
        name: &str,
        layers: &[Layer],
        mut config: ImageConfiguration,
    ) -> Result<ImageRef, ImageError> {
        let repository = Repository { http: &self.http, registry, name };
        let (mut diff_ids, mut blobs) = (Vec::new(), Vec::new());
        for layer in layers {
            let (diff_id, blob) = self.push_layer(&repository, layer).await?;
            diff_ids.push(diff_id.to_string());
            blobs.push(json!({ "mediaType": blob.media_type, "digest": blob.digest, "size": blob.size }));
        }
        let malformed =
            |what| move |error: String| ImageError::Malformed { what, of: name.to_owned(), reason: error };
        let rootfs = RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build();
        config.set_rootfs(rootfs.map_err(|error| malformed("configuration")(error.to_string()))?);
        // It would have to say something about each layer.
        config.set_history(None);
        let config =
            serde_json::to_vec(&config).map_err(|error| malformed("configuration")(error.to_string()))?;
        let config_digest = Digest::of(&config);
        if !repository.has_blob(&config_digest).await? {
            repository.upload(&config_digest, config.len() as u64, config.clone().into()).await?;
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": { "mediaType": CONFIG_TYPE, "digest": config_digest, "size": config.len() },
            "layers": blobs,
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest);
        repository.put_manifest(&digest, MANIFEST_TYPE, manifest.clone()).await?;
        let dir = self.store.image_dir(&digest);
        fs::create_dir_all(&dir).map_err(io_error("make directory", &dir))?;
        for (name, bytes) in [("manifest.json", manifest), ("config.json", config)] {
            fs::write(dir.join(name), bytes).map_err(io_error("write", &dir.join(name)))?;
        }
        Ok(ImageRef { repository: name.to_owned(), digest })
    }

    /// Sees to it that the repository has the layer.
    async fn push_layer(
        &self,
        repository: &Repository<'_>,
        layer: &Layer,
    ) -> Result<(Digest, Blob), ImageError> {
        if let Some(About { diff_id: Some(diff_id), blob: Some(blob), repository: from, .. }) =
            self.store.about(layer)
        {
            let from = from.as_deref().unwrap_or(SHARED);
            if repository.has_blob(&blob.digest).await? || repository.mount(&blob.digest, from).await? {
                return Ok((diff_id, blob));
            }
        }
        // Never packed, or the registry has lost it.
        let path = self.store.scratch_file();
        let pushed = self.pack_and_upload(repository, layer, &path).await;
        // What stays goes at the next start.
        let _ = fs::remove_file(&path);
        pushed
    }

    async fn pack_and_upload(
        &self,
        repository: &Repository<'_>,
        layer: &Layer,
        path: &std::path::Path,
    ) -> Result<(Digest, Blob), ImageError> {
        let (root, file_path) = (layer.path.clone(), path.to_owned());
        let packed = blocking(move || {
            let mut file = File::create_new(&file_path).map_err(io_error("create", &file_path))?;
            pack::pack(&root, &mut file).map_err(io_error("pack", &root))
        })
        .await?;
        let blob = Blob { digest: packed.digest, size: packed.size, media_type: pack::MEDIA_TYPE.to_owned() };
        let shared = Repository { name: SHARED, ..*repository };
        if !shared.has_blob(&blob.digest).await? {
            let file = tokio::fs::File::open(path).await.map_err(io_error("open", path))?;
            let body =
                reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(file, 128 << 10));
            shared.upload(&blob.digest, blob.size, body).await?;
        }
        if repository.name != SHARED
            && !repository.has_blob(&blob.digest).await?
            && !repository.mount(&blob.digest, SHARED).await?
        {
            let url = format!("{}/v2/{}", repository.registry.base_url, repository.name);
            return Err(ImageError::Malformed {
                what: "mount",
                of: url,
                reason: format!("the registry does not mount {} from {SHARED}", blob.digest),
            });
        }
        let about = About {
            diff_id: Some(packed.diff_id.clone()),
            blob: Some(blob.clone()),
            repository: Some(SHARED.to_owned()),
            ..self.store.about(layer).unwrap_or_default()
        };
        self.store.set_about(layer, about)?;
        Ok((packed.diff_id, blob))
    }
}

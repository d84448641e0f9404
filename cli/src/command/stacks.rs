//! `berth stacks`: list them, import one. An import turns a root file system in a tar (plain, or compressed with
//! zstd) into an OCI image of one layer, pushes that to the control plane's registry (OCI distribution 1.1) and
//! names it. What is there already is not sent again.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};

use berth_wire::api::{Stack, StackImage};
use berth_wire::digest::Digest;
use berth_wire::image::ImageRef;
use futures_util::TryStreamExt as _;
use indicatif::ProgressBar;
use reqwest::{Body, Method, header};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_util::io::ReaderStream;

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::quantity;
use crate::screen::{Screen, left};
use crate::session::Session;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A file is read in pieces of this size.
const PIECE_BYTES: usize = 256 * 1024;

/// Arguments of `stacks`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the stacks (the default)
    List,
    /// Import a root file system as a stack
    Import {
        /// The stack's name, e.g. berth-13
        name: String,
        /// A tar of the root file system, plain or compressed with zstd
        file: PathBuf,
        /// The machine it is for, as OCI calls it
        #[arg(long, default_value = default_architecture(), value_name = "ARCH")]
        architecture: String,
    },
}

/// OCI calls machines by Go's names.
fn default_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Runs it.
///
/// # Errors
/// The file cannot be read, or as the API has it.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    let client = session.client()?;
    match arguments.verb.unwrap_or(Verb::List) {
        Verb::List => list(session, &client).await,
        Verb::Import { name, file, architecture } => {
            let stack = import(session.screen, &client, &name, &file, &architecture).await?;
            session.screen.answer(&stack, |screen| {
                screen.line(format!(
                    "Imported {} as {}@{}.",
                    stack.name, stack.image.repository, stack.image.digest
                ));
            })
        }
    }
}

async fn list(session: &Session<'_>, client: &Client) -> Result<(), Failure> {
    let stacks: Vec<Stack> = client.get("/v1/stacks").await?;
    let columns = [left("NAME"), left("IMPORTED"), left("DIGEST")];
    let empty = "No stacks yet. Import one: berth stacks import NAME FILE";
    session.screen.list(&stacks, empty, &columns, |stack, now| {
        let imported = quantity::ago(stack.imported_at, now);
        vec![stack.name.clone(), imported, stack.image.digest.to_string()]
    })
}

async fn import(
    screen: &Screen,
    client: &Client,
    name: &str,
    path: &Path,
    architecture: &str,
) -> Result<Stack, Failure> {
    let failed = |error| Failure::local(format!("reading {}", path.display()), error);
    let size = std::fs::metadata(path).map_err(failed)?.len();
    let bar = screen.transfer(size, "Reading");
    let layer = Layer::read(File::open(path).map_err(failed)?, &bar).map_err(failed)?;
    bar.finish_and_clear();
    let repository = format!("stacks/{name}");
    let registry = Registry { client, screen, repository: &repository };
    registry.push_layer(path, &layer).await?;
    let config = config(architecture, &layer);
    registry.push_bytes(&config).await?;
    let manifest = manifest(&layer, &config);
    let digest = registry.push_manifest(manifest).await?;
    let body = StackImage { image: ImageRef { repository: repository.clone(), digest } };
    client.call(Method::PUT, &format!("/v1/stacks/{name}"), &body).await
}

/// What the manifest says about a layer (OCI image spec 1.1, config.md, Layer DiffID).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    media_type: &'static str,
    digest: Digest,
    size: u64,
    diff_id: Digest,
}

impl Layer {
    /// Reads a tar once for its size and digest, and again for that of its content if it is compressed.
    fn read(mut file: File, bar: &ProgressBar) -> io::Result<Self> {
        let mut start = [0; 4];
        let got = file.read(&mut start)?;
        file.rewind()?;
        let zstd = start == [0x28, 0xb5, 0x2f, 0xfd];
        if got >= 2 && start[..2] == [0x1f, 0x8b] {
            return Err(io::Error::other(
                "it is compressed with gzip; give it plain or compressed with zstd",
            ));
        }
        let (size, digest) = digest_of(bar.wrap_read(&file))?;
        if !zstd {
            check_tar(&mut file)?;
            return Ok(Self {
                media_type: "application/vnd.oci.image.layer.v1.tar",
                diff_id: digest.clone(),
                digest,
                size,
            });
        }
        file.rewind()?;
        bar.reset();
        let (_, diff_id) = digest_of(zstd::Decoder::new(bar.wrap_read(&file))?)?;
        Ok(Self { media_type: "application/vnd.oci.image.layer.v1.tar+zstd", digest, size, diff_id })
    }
}

/// A tar has its magic at byte 257 (POSIX.1-2001, pax Interchange Format, ustar).
fn check_tar(file: &mut File) -> io::Result<()> {
    let mut header = [0; 262];
    file.rewind()?;
    match file.read_exact(&mut header) {
        Ok(()) if &header[257..] == b"ustar" => Ok(()),
        _ => Err(io::Error::other("it is neither a tar nor one compressed with zstd")),
    }
}

fn digest_of(mut reader: impl Read) -> io::Result<(u64, Digest)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut size = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((size, Digest::from_hasher(hasher))),
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}

fn config(architecture: &str, layer: &Layer) -> Vec<u8> {
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "User": "1000", "WorkingDir": "/app" },
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
    });
    config.to_string().into_bytes()
}

fn manifest(layer: &Layer, config: &[u8]) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": Digest::of(config), "size": config.len() },
        "layers": [{ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }],
    });
    manifest.to_string().into_bytes()
}

/// One repository of the control plane's registry.
struct Registry<'a> {
    client: &'a Client,
    screen: &'a Screen,
    repository: &'a str,
}

impl Registry<'_> {
    /// end-2: whether the blob is there.
    async fn has(&self, digest: &Digest) -> Result<bool, Failure> {
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        match self.client.send(self.client.request(Method::HEAD, &path)?).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.exit == Exit::NotFound => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn push_layer(&self, path: &Path, layer: &Layer) -> Result<(), Failure> {
        if self.has(&layer.digest).await? {
            return Ok(());
        }
        let file = tokio::fs::File::open(path)
            .await
            .map_err(|error| Failure::local(format!("reading {}", path.display()), error))?;
        let bar = self.screen.transfer(layer.size, "Sending");
        let count = bar.clone();
        let stream = ReaderStream::with_capacity(file, PIECE_BYTES)
            .inspect_ok(move |piece| count.inc(piece.len() as u64));
        let result = self.push(&layer.digest, layer.size, Body::wrap_stream(stream)).await;
        bar.finish_and_clear();
        result
    }

    async fn push_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let digest = Digest::of(bytes);
        if self.has(&digest).await? {
            return Ok(());
        }
        self.push(&digest, bytes.len() as u64, bytes.to_vec().into()).await
    }

    /// end-4a, then end-6: a session, and the whole blob in one PUT.
    async fn push(&self, digest: &Digest, size: u64, body: Body) -> Result<(), Failure> {
        let path = format!("/v2/{}/blobs/uploads/", self.repository);
        let session = self.client.send(self.client.request(Method::POST, &path)?).await?;
        let location =
            session.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(
                || Failure::new(Exit::Failed, "the registry opened an upload but did not say where"),
            )?;
        let request = self
            .client
            .request(Method::PUT, location)?
            .query(&[("digest", digest.as_str())])
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, size)
            .body(body);
        self.client.send(request).await.map(|_| ())
    }

    /// end-7, by digest.
    async fn push_manifest(&self, manifest: Vec<u8>) -> Result<Digest, Failure> {
        let digest = Digest::of(&manifest);
        let path = format!("/v2/{}/manifests/{digest}", self.repository);
        let request =
            self.client.request(Method::PUT, &path)?.header(header::CONTENT_TYPE, MANIFEST).body(manifest);
        self.client.send(request).await?;
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        builder.append_data(&mut header, "etc/os-release", &b"x\n"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    fn layer(bytes: &[u8]) -> io::Result<Layer> {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        file.rewind().unwrap();
        Layer::read(file, &ProgressBar::hidden())
    }

    #[test]
    fn a_compressed_layer_must_be_named_by_its_bytes_and_by_its_content() {
        let (plain, packed) = (tar(), zstd::encode_all(tar().as_slice(), 3).unwrap());
        let (one, two) = (layer(&plain).unwrap(), layer(&packed).unwrap());
        assert_eq!(one.digest, Digest::of(&plain));
        assert_eq!(one.diff_id, one.digest);
        assert_eq!(two.digest, Digest::of(&packed));
        assert_eq!(two.diff_id, one.diff_id);
        assert_eq!(two.size, packed.len() as u64);
        assert!(two.media_type.ends_with("+zstd"));
    }

    #[test]
    fn a_file_that_is_no_tar_must_be_refused() {
        for bytes in [&b""[..], b"hello", &[0x1f, 0x8b, 8, 0], &[0; 1024]] {
            assert!(layer(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_manifest_must_name_config_and_layer() {
        let layer = layer(&tar()).unwrap();
        let config = config("amd64", &layer);
        let manifest: serde_json::Value = serde_json::from_slice(&manifest(&layer, &config)).unwrap();
        assert_eq!(manifest["config"]["digest"], Digest::of(&config).as_str());
        assert_eq!(manifest["layers"][0]["size"], layer.size);
    }
}

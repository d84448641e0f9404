//! Which repository holds which blob, manifest and tag, as small files beside the blobs:
//!
//! ```text
//! DIR/repositories/NAME/_blobs/HEX        empty
//! DIR/repositories/NAME/_manifests/HEX    its media type
//! DIR/repositories/NAME/_tags/TAG         the digest
//! ```
//!
//! Each is written whole, synced and renamed, always after what it points to.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_wire::digest::Digest;

use super::path::{Reference, Repository};
use crate::blobs::{BlobError, Blobs};

/// The repositories' folder. Cheap to clone. Its methods block for a few small file operations.
#[derive(Debug, Clone)]
pub struct Links {
    dir: Arc<Path>,
}

/// A manifest in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// The media type it was pushed with.
    pub media_type: String,
}

impl Links {
    /// The links that belong to these blobs.
    pub fn new(blobs: &Blobs) -> Self {
        Self { dir: blobs.dir().join("repositories").into() }
    }

    /// Whether the repository holds the blob.
    pub fn has_blob(&self, repository: &Repository, digest: &Digest) -> bool {
        self.file(repository, "_blobs", digest.hex()).exists()
    }

    /// Lets the repository hold the blob.
    pub fn add_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), BlobError> {
        write(&self.file(repository, "_blobs", digest.hex()), b"")
    }

    /// The manifest meant, if the repository holds it.
    pub fn manifest(&self, repository: &Repository, reference: &Reference) -> Option<Manifest> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => {
                fs::read_to_string(self.file(repository, "_tags", tag)).ok()?.trim().parse().ok()?
            }
        };
        let media_type = fs::read_to_string(self.file(repository, "_manifests", digest.hex())).ok()?;
        Some(Manifest { digest, media_type })
    }

    /// Lets the repository hold the manifest, under a tag if there is one.
    pub fn add_manifest(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        tag: Option<&str>,
    ) -> Result<(), BlobError> {
        write(&self.file(repository, "_manifests", manifest.digest.hex()), manifest.media_type.as_bytes())?;
        match tag {
            Some(tag) => write(&self.file(repository, "_tags", tag), manifest.digest.as_str().as_bytes()),
            None => Ok(()),
        }
    }

    /// The repository's tags, sorted.
    pub fn tags(&self, repository: &Repository) -> Vec<String> {
        let mut tags = names(&self.dir.join(repository.to_string()).join("_tags"));
        tags.sort();
        tags
    }

    /// Every repository there is.
    pub fn repositories(&self) -> Vec<Repository> {
        let mut found = Vec::new();
        for kind in ["apps", "stacks"] {
            let within = names(&self.dir.join(kind));
            found.extend(within.iter().filter_map(|name| Repository::parse(&format!("{kind}/{name}"))));
        }
        if self.dir.join("layers").exists() {
            found.push(Repository::Layers);
        }
        found
    }

    /// Every digest the repository holds, manifests included.
    pub fn digests(&self, repository: &Repository) -> Vec<Digest> {
        let dir = self.dir.join(repository.to_string());
        let blobs = names(&dir.join("_blobs"));
        let all = blobs.into_iter().chain(names(&dir.join("_manifests")));
        all.filter_map(|hex| format!("sha256:{hex}").parse().ok()).collect()
    }

    /// Forgets a repository; its blobs stay for whoever else holds them.
    pub fn remove(&self, repository: &Repository) -> Result<(), BlobError> {
        let path = self.dir.join(repository.to_string());
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(BlobError::Io { doing: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    fn file(&self, repository: &Repository, kind: &str, name: &str) -> PathBuf {
        self.dir.join(repository.to_string()).join(kind).join(name)
    }
}

/// File names in a folder; none if it is not there. Names that begin with a dot are being written.
fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

fn write(path: &Path, content: &[u8]) -> Result<(), BlobError> {
    let attempt = || -> io::Result<()> {
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(dir)?;
        let temporary = dir.join(format!(".{}", uuid::Uuid::now_v7()));
        let mut file = fs::File::create_new(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(dir)?.sync_all()
    };
    attempt().map_err(|source| BlobError::Io { doing: "write", path: path.to_owned(), source })
}

//! Blobs: files named by the SHA-256 of what is in them. The registry's layers and configs are here, and the
//! source trees of builds. What a blob means, and who may see it, is not decided here.
//!
//! ```text
//! DIR/sha256/HEX      a finished blob: whole, synced, never changed
//! DIR/uploads/UUID    one that is being written; left over from a crash, it is removed at the next start
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use berth_wire::digest::Digest;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// The largest blob: a compressed layer of a toolchain is some hundred MiB.
pub const BLOB_BYTES_MAX: u64 = 8 << 30;

/// The folder of blobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: Arc<Path>,
}

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The content has another digest than was announced.
    #[error(
        "the content's digest is {actual}, not {expected} as announced; nothing was stored, send it again"
    )]
    Mismatch {
        /// What was announced.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// More bytes than allowed.
    #[error("it is larger than the {max} bytes allowed")]
    TooLarge {
        /// The limit.
        max: u64,
    },
    /// The file system said no.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl BlobError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Io { doing, path, source }
}

impl Blobs {
    /// Opens (or makes) the folder and removes unfinished uploads of an earlier process.
    pub fn open(dir: &Path) -> Result<Self, BlobError> {
        let uploads = dir.join("uploads");
        if uploads.exists() {
            fs::remove_dir_all(&uploads).map_err(failed("empty", &uploads))?;
        }
        for part in [dir.to_owned(), dir.join("sha256"), uploads] {
            crate::private::dir(&part).map_err(failed("make", &part))?;
        }
        Ok(Self { dir: dir.into() })
    }

    /// Where everything is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("sha256").join(digest.hex())
    }

    /// The blob's size, if it is here.
    pub async fn size(&self, digest: &Digest) -> Option<u64> {
        tokio::fs::metadata(self.path(digest)).await.ok().map(|meta| meta.len())
    }

    /// The blob opened for reading, and its size; `None` if it is not here.
    pub async fn open_blob(&self, digest: &Digest) -> Result<Option<(tokio::fs::File, u64)>, BlobError> {
        let path = self.path(digest);
        let file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let size = file.metadata().await.map_err(failed("examine", &path))?.len();
        Ok(Some((file, size)))
    }

    /// A whole blob that is known to be small; `None` if it is not here.
    pub async fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let path = self.path(digest);
        match tokio::fs::read(&path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Stores bytes that are in memory already.
    pub async fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let mut upload = self.begin(bytes.len() as u64).await?;
        upload.write(bytes).await?;
        upload.finish(None).await
    }

    /// Begins to write a blob of at most `bytes_max`.
    pub async fn begin(&self, bytes_max: u64) -> Result<Upload, BlobError> {
        let path = self.dir.join("uploads").join(Uuid::now_v7().to_string());
        let file = tokio::fs::File::create_new(&path).await.map_err(failed("make", &path))?;
        let unfinished = Unfinished { path };
        Ok(Upload { blobs: self.clone(), file, unfinished, hasher: Sha256::new(), length: 0, bytes_max })
    }

    /// Every blob with the time it was last stored and its size. Blocks.
    pub fn list(&self) -> Result<Vec<(Digest, SystemTime, u64)>, BlobError> {
        let dir = self.dir.join("sha256");
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed("list", &dir))? {
            let entry = entry.map_err(failed("list", &dir))?;
            let name = format!("sha256:{}", entry.file_name().to_string_lossy());
            let (Ok(digest), Ok(meta)) = (name.parse::<Digest>(), entry.metadata()) else { continue };
            found.push((digest, meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len()));
        }
        Ok(found)
    }

    /// Removes a blob; one that is not here is no error.
    pub fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

/// A blob that is being written. Dropped before [`Upload::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    blobs: Blobs,
    file: tokio::fs::File,
    unfinished: Unfinished,
    hasher: Sha256,
    length: u64,
    bytes_max: u64,
}

/// Removes the file unless it was renamed away.
#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Upload {
    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        if self.length + bytes.len() as u64 > self.bytes_max {
            return Err(BlobError::TooLarge { max: self.bytes_max });
        }
        self.file.write_all(bytes).await.map_err(failed("write", &self.unfinished.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Makes it a blob: checks the digest, syncs, renames, syncs the folder.
    pub async fn finish(mut self, expected: Option<&Digest>) -> Result<Digest, BlobError> {
        let written = self.unfinished.path.clone();
        let digest = Digest::from_hasher(std::mem::take(&mut self.hasher));
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(BlobError::Mismatch { expected: expected.clone(), actual: digest });
        }
        self.file.flush().await.map_err(failed("write", &written))?;
        self.file.sync_all().await.map_err(failed("sync", &written))?;
        let path = self.blobs.path(&digest);
        tokio::fs::rename(&written, &path).await.map_err(failed("name", &path))?;
        let dir = self.blobs.dir.join("sha256");
        let synced = tokio::fs::File::open(&dir).await.map_err(failed("open", &dir))?;
        synced.sync_all().await.map_err(failed("sync", &dir))?;
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blob_must_be_found_by_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let digest = blobs.put(b"hello").await.unwrap();
        assert_eq!(digest, Digest::of(b"hello"));
        assert_eq!(blobs.read(&digest).await.unwrap().unwrap(), b"hello");
        assert_eq!(blobs.list().unwrap().len(), 1);
        blobs.remove(&digest).unwrap();
        blobs.remove(&digest).unwrap();
        assert_eq!(blobs.size(&digest).await, None);
    }

    #[tokio::test]
    async fn a_wrong_digest_must_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut upload = blobs.begin(10).await.unwrap();
        upload.write(b"hello").await.unwrap();
        let refused = upload.finish(Some(&Digest::of(b"other"))).await.unwrap_err();
        assert!(matches!(refused, BlobError::Mismatch { .. }), "{refused}");
        assert!(blobs.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn more_than_allowed_must_be_refused() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut upload = blobs.begin(4).await.unwrap();
        assert!(matches!(upload.write(b"hello").await, Err(BlobError::TooLarge { max: 4 })));
    }

    #[tokio::test]
    async fn uploads_of_an_earlier_process_must_be_removed_at_start() {
        let dir = tempfile::tempdir().unwrap();
        Blobs::open(dir.path()).unwrap();
        fs::write(dir.path().join("uploads/left-over"), b"x").unwrap();
        Blobs::open(dir.path()).unwrap();
        assert!(!dir.path().join("uploads/left-over").exists());
    }
}

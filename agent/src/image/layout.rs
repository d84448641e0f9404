//! An image as a directory (OCI image spec 1.1, image-layout.md), as `skopeo copy … oci:DIR` makes it. Somebody else wrote it: files
//! are opened beneath it without following links, documents are bounded, and every digest is checked.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use berth_wire::digest::Digest;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::pull::Descriptors;
use super::registry::DOCUMENT_BYTES_MAX;
use super::{ImageError, io_error};

/// What a directory must have to be one.
const MARK: &str = "oci-layout";

/// An open layout.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
    root: File,
    index: Vec<u8>,
}

impl Layout {
    /// Whether a directory looks like one.
    pub(super) fn is_at(dir: &Path) -> bool {
        std::fs::symlink_metadata(dir.join(MARK)).is_ok_and(|metadata| metadata.is_file())
    }

    /// Opens it and reads its index.
    pub(super) fn open(dir: &Path) -> Result<Self, ImageError> {
        let root = File::open(dir).map_err(io_error("open", dir))?;
        let mut layout = Self { dir: dir.to_owned(), root, index: Vec::new() };
        layout.index = layout.document("index.json", "index", "index.json")?;
        Ok(layout)
    }

    /// The image in it: its only one, or the index that one has to be chosen from.
    pub(super) fn digest(&self) -> Result<Digest, ImageError> {
        let index: Descriptors =
            serde_json::from_slice(&self.index).map_err(|error| ImageError::Malformed {
                what: "index",
                of: self.dir.display().to_string(),
                reason: error.to_string(),
            })?;
        Ok(index.only().unwrap_or_else(|| Digest::of(&self.index)))
    }

    /// A manifest, index or configuration.
    pub(super) fn small(&self, what: &'static str, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        if Digest::of(&self.index) == *digest {
            return Ok(self.index.clone());
        }
        let bytes = self.document(&path_of(digest), what, digest.as_str())?;
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(ImageError::Digest { what, wanted: digest.clone(), found })
        }
    }

    /// A layer, to be read and checked.
    pub(super) fn blob(&self, digest: &Digest) -> Result<File, ImageError> {
        self.file(&path_of(digest))
    }

    fn document(&self, path: &str, what: &'static str, of: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let bound = DOCUMENT_BYTES_MAX as u64 + 1;
        self.file(path)?
            .take(bound)
            .read_to_end(&mut bytes)
            .map_err(io_error("read", &self.dir.join(path)))?;
        if bytes.len() > DOCUMENT_BYTES_MAX {
            let reason = format!("it has more than {DOCUMENT_BYTES_MAX} bytes");
            return Err(ImageError::Malformed { what, of: of.to_owned(), reason });
        }
        Ok(bytes)
    }

    fn file(&self, path: &str) -> Result<File, ImageError> {
        // Not blocking, in case it is a FIFO; on a file that means nothing.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let opened = openat2(&self.root, path, flags, Mode::empty(), resolve).map(File::from);
        let file = opened.map_err(|errno| io_error("open", &self.dir.join(path))(errno.into()))?;
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let no_file = || io_error("read", &self.dir.join(path))(io::ErrorKind::InvalidInput.into());
        if is_file { Ok(file) } else { Err(no_file()) }
    }
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn layout(index: &str) -> (tempfile::TempDir, Result<Layout, ImageError>) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join(MARK), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        fs::write(dir.path().join("index.json"), index).unwrap();
        let opened = Layout::open(dir.path());
        (dir, opened)
    }

    #[test]
    fn a_blob_must_be_a_file_within_with_its_digest() {
        let (dir, opened) = layout(r#"{"manifests": []}"#);
        let layout = opened.unwrap();
        assert!(Layout::is_at(dir.path()));
        let digest = Digest::of(b"content");
        let blob = dir.path().join(path_of(&digest));
        fs::write(&blob, "content").unwrap();
        assert_eq!(layout.small("manifest", &digest).unwrap(), b"content");
        fs::write(&blob, "other").unwrap();
        assert!(matches!(layout.small("manifest", &digest), Err(ImageError::Digest { .. })));
        fs::remove_file(&blob).unwrap();
        symlink("/etc/passwd", &blob).unwrap();
        assert!(layout.blob(&digest).is_err());
        fs::remove_file(&blob).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &blob, fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(layout.blob(&digest).is_err());
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, vec![b'x'; DOCUMENT_BYTES_MAX + 1]).unwrap();
        assert!(matches!(layout.small("manifest", &digest), Err(ImageError::Malformed { .. })));
    }

    #[test]
    fn the_only_image_must_be_taken_and_of_several_the_index() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let one = format!(r#"{{"manifests": [{{"digest": "{a}", "size": 1}}]}}"#);
        assert_eq!(layout(&one).1.unwrap().digest().unwrap(), a);
        let two =
            format!(r#"{{"manifests": [{{"digest": "{a}", "size": 1}}, {{"digest": "{b}", "size": 1}}]}}"#);
        assert_eq!(layout(&two).1.unwrap().digest().unwrap(), Digest::of(two.as_bytes()));
        for bad in ["", "[]", r#"{"manifests": [{"digest": "../../etc/passwd", "size": 1}]}"#] {
            assert!(layout(bad).1.unwrap().digest().is_err(), "{bad}");
        }
    }
}

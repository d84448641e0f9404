//! From a layer's tree to a tar compressed with zstd, the inverse of unpacking: whiteouts become `.wh.` files. The tree was
//! written by hostile code, so it is walked by descriptors, and no link is followed.
//!
//! The same tree gives the same bytes: names are sorted, times are whole seconds, nothing of the host is in it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use berth_wire::digest::Digest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// What the registry is told a packed layer is.
pub(super) const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// zstd's own default: twice as fast as gzip at a better ratio.
const LEVEL: i32 = 3;
/// As deep as unpacking accepts.
const DEPTH_MAX: usize = 256;

/// A packed layer.
#[derive(Debug)]
pub(super) struct Packed {
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// Of the file.
    pub digest: Digest,
    /// Bytes in the file.
    pub size: u64,
}

/// Writes the tree as a compressed tar.
pub(super) fn pack(root: &Path, to: &mut File) -> io::Result<Packed> {
    let compressor = zstd::stream::write::Encoder::new(Hashed::new(to), LEVEL)?;
    let mut packer = Packer { tar: Builder::new(Hashed::new(compressor)), links: HashMap::new() };
    let dir = OwnedFd::from(File::open(root)?);
    let stat = rustix::fs::fstat(&dir)?;
    packer.header(&stat, EntryType::Directory, Path::new("./"), 0, io::empty())?;
    packer.directory(&dir, Path::new(""), 0)?;
    let plain = packer.tar.into_inner()?;
    let (compressor, diff_id, _) = plain.finish();
    let (file, digest, size) = compressor.finish()?.finish();
    file.sync_data()?;
    Ok(Packed { diff_id, digest, size })
}

struct Packer<W: Write> {
    tar: Builder<W>,
    /// Where a file with several names was packed first.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn directory(&mut self, dir: &OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("{} is nested too deep", path.display())));
        }
        if is_opaque(dir) {
            self.empty(&path.join(".wh..wh..opq"))?;
        }
        let mut names: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(dir)? {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        names.iter().try_for_each(|name| {
            self.entry(dir, name, path, depth).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.join(name).display()))
            })
        })
    }

    fn entry(&mut self, dir: &OwnedFd, name: &OsStr, parent: &Path, depth: usize) -> io::Result<()> {
        let path = parent.join(name);
        if name.as_bytes().starts_with(b".wh.") {
            return Err(io::Error::other("a name that starts with .wh. cannot be in an image"));
        }
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_nlink > 1 && kind != FileType::Directory && kind != FileType::CharacterDevice {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let mut header = header(&stat, EntryType::Link, 0)?;
                return self.tar.append_link(&mut header, &path, first.clone());
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = openat(dir, name, flags, Mode::empty())?;
                self.header(&stat, EntryType::Directory, &path.join(""), 0, io::empty())?;
                self.directory(&inner, &path, depth + 1)
            }
            FileType::RegularFile => {
                // Not blocking, in case it has become something else meanwhile.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = File::from(openat(dir, name, flags, Mode::empty())?);
                let size = stat.st_size.cast_unsigned();
                self.header(&stat, EntryType::Regular, &path, size, io::Read::take(file, size))
            }
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new())?.into_bytes();
                let mut header = header(&stat, EntryType::Symlink, 0)?;
                self.tar.append_link(&mut header, &path, OsStr::from_bytes(&target))
            }
            FileType::Fifo => self.header(&stat, EntryType::Fifo, &path, 0, io::empty()),
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                let mut hidden = OsString::from(".wh.");
                hidden.push(name);
                self.empty(&parent.join(hidden))
            }
            // Sockets belong to a process, device nodes to Berth.
            _ => Ok(()),
        }
    }

    fn header(
        &mut self,
        stat: &Stat,
        kind: EntryType,
        path: &Path,
        size: u64,
        content: impl io::Read,
    ) -> io::Result<()> {
        let mut header = header(stat, kind, size)?;
        self.tar.append_data(&mut header, path, content)
    }

    fn empty(&mut self, path: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(0);
        self.tar.append_data(&mut header, path, io::empty())
    }
}

fn header(stat: &Stat, kind: EntryType, size: u64) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    // Before 1970 is what nobody means.
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(size);
    Ok(header)
}

/// Overlayfs's mark on a directory that hides what is below.
fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0; 4];
    matches!(rustix::fs::fgetxattr(dir.as_fd(), "trusted.overlay.opaque", &mut value[..]), Ok(1) if value[0] == b'y')
}

/// Hashes and counts what is written through it.
struct Hashed<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_hasher(self.hasher), self.bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

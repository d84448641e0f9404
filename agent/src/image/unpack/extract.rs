//! From an archive to a directory tree, by descriptors only: every path is resolved with the tree as its root
//! (openat2, RESOLVE_IN_ROOT), names are single components, nothing existing is written through.
//!
//! Rules: no `..`; no hard link out of the layer; device nodes are left out (a container's /dev is Berth's own); extended
//! attributes are left out, and those of overlayfs refused; sparse formats refused; ids up to 65,535; [`Limits`].

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
    linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use tar::{Archive, Entry, EntryType};

use super::Unpacked;
use super::name::{Name, components, shown};
use super::refusal::{Refusal, at, errno_at};
use super::stream::{HeaderAllowance, Plain};
use crate::installation::UIDS_PER_CONTAINER;

/// What an archive may not exceed.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Uncompressed bytes, headers and padding included. 16 GiB: eight times the largest stack in use.
    pub bytes_max: u64,
    /// Entries, and directories that are made because an entry lies in them. A million: five times a Debian with every compiler.
    pub entries_max: u64,
    /// Uncompressed bytes per compressed byte. Real layers reach 20; gzip can reach 1,030, zstd far more.
    pub ratio_max: u64,
    /// Bytes before the ratio counts: small archives of zeros hurt nobody.
    pub ratio_free_bytes: u64,
    /// Nesting of directories.
    pub depth_max: usize,
    /// Bytes of headers, long names and extended attributes of one entry; they are held in memory. 1 MiB, as Go's archive/tar has it.
    pub header_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 16 << 30,
            entries_max: 1_000_000,
            ratio_max: 250,
            ratio_free_bytes: 64 << 20,
            depth_max: 256,
            header_bytes_max: 1 << 20,
        }
    }
}

/// Fills the (empty) directory from an archive.
pub(super) fn extract(source: impl Read, root: BorrowedFd<'_>, limits: &Limits) -> Result<Unpacked, Refusal> {
    let (compressed, headers) = (Cell::new(0), HeaderAllowance::default());
    let mut archive = Archive::new(Plain::open(source, limits, &compressed, &headers)?);
    let mut tree = Tree { root, limits, opaque: Vec::new(), parent: None, bytes: 0, names: Cell::new(0) };
    let mut entries = archive.entries()?;
    loop {
        headers.limit(limits.header_bytes_max);
        let Some(entry) = entries.next() else { break };
        headers.lift();
        let mut entry = entry?;
        tree.count_name()?;
        tree.take(&mut entry)?;
        // Content of what has none (a directory, a link), so that only headers are left to be read before the next.
        io::copy(&mut entry, &mut io::sink())?;
    }
    headers.lift();
    let diff_id = archive.into_inner().finish()?;
    Ok(Unpacked { diff_id, bytes: tree.bytes, opaque: tree.opaque })
}

struct Tree<'a> {
    root: BorrowedFd<'a>,
    limits: &'a Limits,
    opaque: Vec<String>,
    /// The directory of the last entry: most entries follow their neighbours.
    parent: Option<(Vec<Vec<u8>>, OwnedFd)>,
    bytes: u64,
    /// Entries and directories made for them.
    names: Cell<u64>,
}

/// Owner, permissions and time of an entry.
struct Attributes {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    times: Timestamps,
}

impl Attributes {
    fn read<R: Read>(path: &[u8], entry: &Entry<'_, R>) -> Result<Self, Refusal> {
        let header = entry.header();
        let (uid, gid) = (header.uid().map_err(at(path))?, header.gid().map_err(at(path))?);
        if uid.max(gid) >= u64::from(UIDS_PER_CONTAINER) {
            return Err(Refusal::Entry(shown(path), "has an owner above 65535"));
        }
        let mode = Mode::from_raw_mode(header.mode().map_err(at(path))? & 0o7777);
        let time = Timespec { tv_sec: header.mtime().map_err(at(path))?.cast_signed(), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(Self { uid: Uid::from_raw(uid as u32), gid: Gid::from_raw(gid as u32), mode, times })
    }
}

impl Tree<'_> {
    fn count_name(&self) -> Result<(), Refusal> {
        self.names.set(self.names.get() + 1);
        if self.names.get() > self.limits.entries_max {
            return Err(Refusal::Entries(self.limits.entries_max));
        }
        Ok(())
    }

    fn take<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), Refusal> {
        let path = entry.path_bytes().into_owned();
        refuse_extensions(&path, entry)?;
        match Name::parse(&path)? {
            Name::Ignored => Ok(()),
            Name::Root => self.set_root(&path, entry),
            Name::Opaque { directory } => {
                self.directory(&path, &directory)?;
                self.mark_opaque(&path, &directory)
            }
            Name::Whiteout { parent, name } => self.whiteout(&path, parent, &name),
            Name::Entry { parent, name } => self.entry(&path, parent, &name, entry),
        }
    }

    fn set_root<R: Read>(&mut self, path: &[u8], entry: &Entry<'_, R>) -> Result<(), Refusal> {
        if !entry.header().entry_type().is_dir() {
            return Err(Refusal::Entry(shown(path), "would replace the root"));
        }
        let attributes = Attributes::read(path, entry)?;
        let dir = self.resolve(b".").map_err(errno_at(path))?;
        set_attributes(&dir, &attributes).map_err(errno_at(path))
    }

    fn mark_opaque(&mut self, path: &[u8], directory: &[Vec<u8>]) -> Result<(), Refusal> {
        let path_text = String::from_utf8(directory.join(&b'/'));
        // Marked later, by the agent, on the directory itself: one behind a link would be another by then.
        if self.open(&joined(directory), ResolveFlags::NO_SYMLINKS).is_err() {
            return Err(Refusal::Name(shown(path), "is opaque behind a symbolic link"));
        }
        self.opaque.push(path_text.map_err(|_| Refusal::Name(shown(path), "is not UTF-8 and opaque"))?);
        Ok(())
    }

    /// A character device 0/0 is what overlayfs takes for a whiteout; anybody may make that one.
    fn whiteout(&mut self, path: &[u8], parent: Vec<Vec<u8>>, name: &[u8]) -> Result<(), Refusal> {
        let parent = self.directory(path, &parent)?;
        match mknodat(parent, OsStr::from_bytes(name), FileType::CharacterDevice, Mode::empty(), 0) {
            // The layer has that name itself, which hides the one below already.
            Err(rustix::io::Errno::EXIST) => Ok(()),
            done => done.map_err(errno_at(path)),
        }
    }

    fn entry<R: Read>(
        &mut self,
        path: &[u8],
        parent: Vec<Vec<u8>>,
        name: &[u8],
        entry: &mut Entry<'_, R>,
    ) -> Result<(), Refusal> {
        let attributes = Attributes::read(path, entry)?;
        let kind = entry.header().entry_type();
        let os_name = OsStr::from_bytes(name);
        // Made before the borrow of the parent's descriptor.
        let link_target = if kind.is_hard_link() { Some(self.link_target(path, entry)?) } else { None };
        let dir = self.directory(path, &parent)?;
        match kind {
            EntryType::Directory => {
                let hid = make_directory(dir, os_name).map_err(errno_at(path))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(dir, os_name, flags, Mode::empty()).map_err(errno_at(path))?;
                set_attributes(&made, &attributes).map_err(errno_at(path))?;
                if hid {
                    let mut directory = parent;
                    directory.push(name.to_vec());
                    self.mark_opaque(path, &directory)?;
                }
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous => {
                make_way(dir, os_name).map_err(errno_at(path))?;
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(dir, os_name, flags, Mode::RUSR | Mode::WUSR).map_err(errno_at(path))?;
                let mut file = File::from(made);
                self.bytes += io::copy(entry, &mut file).map_err(at(path))?;
                set_attributes(&file.into(), &attributes).map_err(errno_at(path))
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                make_way(dir, os_name).map_err(errno_at(path))?;
                // Whatever it says: it is only ever followed inside the container.
                symlinkat(OsStr::from_bytes(&target), dir, os_name).map_err(errno_at(path))?;
                set_link_attributes(dir, os_name, &attributes).map_err(errno_at(path))
            }
            EntryType::Link => {
                let Some((target_dir, target)) = link_target else { return Ok(()) };
                let target = OsStr::from_bytes(&target);
                if same_file(dir, os_name, &target_dir, target) {
                    return Ok(());
                }
                make_way(dir, os_name).map_err(errno_at(path))?;
                linkat(&target_dir, target, dir, os_name, AtFlags::empty()).map_err(errno_at(path))
            }
            EntryType::Fifo => {
                make_way(dir, os_name).map_err(errno_at(path))?;
                mknodat(dir, os_name, FileType::Fifo, attributes.mode, 0).map_err(errno_at(path))?;
                set_link_attributes(dir, os_name, &attributes).map_err(errno_at(path))
            }
            EntryType::Char | EntryType::Block | EntryType::XGlobalHeader => Ok(()),
            _ => Err(Refusal::Entry(shown(path), "is of a kind no layer has (sparse or unknown)")),
        }
    }

    /// The directory and name a hard link points to; it must be something the layer itself has.
    fn link_target<R: Read>(
        &mut self,
        path: &[u8],
        entry: &Entry<'_, R>,
    ) -> Result<(OwnedFd, Vec<u8>), Refusal> {
        let target = entry.link_name_bytes().unwrap_or_default();
        let mut parent = components(&target)?;
        let name = parent.pop().ok_or_else(|| Refusal::Entry(shown(path), "is a hard link to the root"))?;
        let inside = || Refusal::Entry(shown(path), "is a hard link to something that is not in the layer");
        let dir = self.resolve(&joined(&parent)).map_err(|_| inside())?;
        match statat(&dir, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice => Err(inside()),
            Ok(_) => Ok((dir, name)),
            Err(_) => Err(inside()),
        }
    }

    fn resolve(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.open(path, ResolveFlags::NO_MAGICLINKS)
    }

    fn open(&self, path: &[u8], more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV | more;
        openat2(self.root, OsStr::from_bytes(path), flags, Mode::empty(), resolve)
    }

    /// The directory of these components; those missing are made (0755, root), as every unpacker does.
    fn directory(&mut self, path: &[u8], wanted: &[Vec<u8>]) -> Result<BorrowedFd<'_>, Refusal> {
        if wanted.len() > self.limits.depth_max {
            return Err(Refusal::Name(shown(path), "is nested too deep"));
        }
        let cached = self.parent.as_ref().is_some_and(|(of, _)| of.as_slice() == wanted);
        if !cached {
            let found = match self.resolve(&joined(wanted)) {
                Err(rustix::io::Errno::NOENT) => self.make_directories(path, wanted)?,
                found => found.map_err(errno_at(path))?,
            };
            self.parent = Some((wanted.to_vec(), found));
        }
        match &self.parent {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Err(Refusal::Entry(shown(path), "has no directory")),
        }
    }

    fn make_directories(&self, path: &[u8], wanted: &[Vec<u8>]) -> Result<OwnedFd, Refusal> {
        let mut at_dir = self.resolve(b".").map_err(errno_at(path))?;
        for depth in 1..=wanted.len() {
            let so_far = joined(&wanted[..depth]);
            at_dir = match self.resolve(&so_far) {
                Err(rustix::io::Errno::NOENT) => {
                    self.count_name()?;
                    let name = OsStr::from_bytes(&wanted[depth - 1]);
                    mkdirat(&at_dir, name, Mode::from_raw_mode(0o755)).map_err(errno_at(path))?;
                    self.resolve(&so_far)
                }
                found => found,
            }
            .map_err(errno_at(path))?;
        }
        Ok(at_dir)
    }
}

fn joined(components: &[Vec<u8>]) -> Vec<u8> {
    if components.is_empty() { b".".to_vec() } else { components.join(&b'/') }
}

/// Overlayfs's own attributes would let a layer redirect into others or hide what it likes.
fn refuse_extensions<R: Read>(path: &[u8], entry: &mut Entry<'_, R>) -> Result<(), Refusal> {
    let Some(extensions) = entry.pax_extensions().map_err(at(path))? else { return Ok(()) };
    for extension in extensions {
        let extension = extension.map_err(at(path))?;
        let key = extension.key_bytes();
        if key.windows(9).any(|window| window == b".overlay.") {
            return Err(Refusal::Entry(shown(path), "has an extended attribute of overlayfs"));
        }
        if key.starts_with(b"GNU.sparse.") {
            return Err(Refusal::Entry(shown(path), "is of a kind no layer has (sparse or unknown)"));
        }
    }
    Ok(())
}

/// Removes what has the name, unless it is a directory with something in it.
fn make_way(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) => unlinkat(dir, name, AtFlags::REMOVEDIR),
        done => done,
    }
}

/// Makes the directory unless there is one; says whether it took the place of a whiteout, and so must hide what is below.
fn make_directory(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<bool> {
    let mode = Mode::from_raw_mode(0o700);
    match mkdirat(dir, name, mode) {
        Err(rustix::io::Errno::EXIST) => {}
        done => return done.map(|()| false),
    }
    let kind = FileType::from_raw_mode(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
    if kind == FileType::Directory {
        return Ok(false);
    }
    unlinkat(dir, name, AtFlags::empty())?;
    mkdirat(dir, name, mode)?;
    Ok(kind == FileType::CharacterDevice)
}

fn same_file(dir: BorrowedFd<'_>, name: &OsStr, other_dir: &OwnedFd, other: &OsStr) -> bool {
    match (statat(dir, name, AtFlags::SYMLINK_NOFOLLOW), statat(other_dir, other, AtFlags::SYMLINK_NOFOLLOW))
    {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}

/// Owner before mode: changing it clears setuid bits. Time last.
fn set_attributes(fd: &OwnedFd, attributes: &Attributes) -> rustix::io::Result<()> {
    fchown(fd, Some(attributes.uid), Some(attributes.gid))?;
    fchmod(fd, attributes.mode)?;
    rustix::fs::futimens(fd, &attributes.times)
}

fn set_link_attributes(dir: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> rustix::io::Result<()> {
    chownat(dir, name, Some(attributes.uid), Some(attributes.gid), AtFlags::SYMLINK_NOFOLLOW)?;
    utimensat(dir, name, &attributes.times, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;

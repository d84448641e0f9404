//! What travels beside a message: descriptors, numbered as they are packed.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_wire::launch::{DESCRIPTORS_MAX, FdIndex};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mount::{OpenTreeFlags, open_tree};

/// Descriptors in the order in which they are named.
#[derive(Debug, Default)]
pub struct Parcel(Vec<OwnedFd>);

impl Parcel {
    /// Packs one; says how it is named.
    ///
    /// # Errors
    /// More than the kernel passes at once.
    pub fn pack(&mut self, fd: OwnedFd) -> io::Result<FdIndex> {
        if self.0.len() >= DESCRIPTORS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("more than {DESCRIPTORS_MAX} layers, binds and files for one container"),
            ));
        }
        self.0.push(fd);
        Ok(FdIndex((self.0.len() - 1) as u16))
    }

    /// How the one after the next is named.
    pub fn next_but_one(&self) -> FdIndex {
        FdIndex(self.0.len() as u16 + 1)
    }

    /// All of them.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd).collect()
    }
}

/// A detached copy of the mount that holds `path`, with `path` as its root: the launcher, which is in another mount namespace,
/// gets at this directory (or file) and nothing beside it.
///
/// # Errors
/// The kernel's refusal, naming the path.
pub fn tree(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(rustix::fs::CWD, path, flags).map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("open_tree {}: {error}", path.display()))
    })
}

/// A memfd that holds these bytes for good.
///
/// # Errors
/// The kernel's refusal.
pub fn sealed_file(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(content)?;
    file.rewind()?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

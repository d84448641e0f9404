//! What is mounted inside the root: kernel file systems, the private tmpfs with its device nodes, binds, masks and what is
//! made read-only. Every target is opened beneath the root without following a link, and mounts are moved onto that descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

use super::identity::as_owner;
use crate::kernel::{self, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, Decimal, Errno, Result};

/// Where the tmpfs is attached in the skeleton until its parts are cloned off.
const TMPFS: &CStr = c"/tmpfs";
const KERNEL_FS: u64 = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;

/// Opens a target and moves a mount onto it; closes both.
fn place(root: RawFd, tree: RawFd, path: &CStr) -> Result<()> {
    let placed = kernel::open_beneath(root, path, libc::O_PATH).and_then(|target| {
        let attached = kernel::attach(tree, target);
        kernel::close(target);
        attached
    });
    kernel::close(tree);
    placed
}

/// Makes the missing parts of a path, as this owner: on an idmapped upper an id that is not mapped cannot own anything.
pub(super) fn directory(root: RawFd, path: &CStr, owner: u32) -> Result<()> {
    as_owner(owner, || make_directories(root, path.to_bytes()))
}

fn make_directories(root: RawFd, path: &[u8]) -> Result<()> {
    let mut at = kernel::open_beneath(root, c".", libc::O_PATH)?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        let mut name = [0u8; 256];
        if part.len() >= name.len() {
            return Err(Errno(libc::ENAMETOOLONG));
        }
        name[..part.len()].copy_from_slice(part);
        let name = CStr::from_bytes_until_nul(&name).map_err(|_| Errno(libc::EINVAL))?;
        let next = match kernel::open_beneath(at, name, libc::O_PATH | libc::O_DIRECTORY) {
            Err(Errno(libc::ENOENT)) => {
                kernel::call!(libc::SYS_mkdirat, at, name.as_ptr(), 0o755)?;
                kernel::open_beneath(at, name, libc::O_PATH | libc::O_DIRECTORY)
            }
            other => other,
        };
        kernel::close(at);
        at = next?;
    }
    kernel::close(at);
    Ok(())
}

pub(super) fn proc(root: RawFd) -> Result<()> {
    place(root, kernel::new_mount(c"proc", &[], KERNEL_FS)?, c"proc")
}

/// The first process is 1 in the proc that was mounted for it; the command inherits the value. A further command of a running container
/// writes it before it enters that one, in the host's own proc.
pub(super) fn oom_score_adjust(root: RawFd, value: &CStr) -> Result<()> {
    let file = if root < 0 {
        kernel::open_own(c"/proc/self/oom_score_adj", libc::O_WRONLY)?
    } else {
        kernel::open_beneath(root, c"proc/1/oom_score_adj", libc::O_WRONLY)?
    };
    let written = kernel::call!(libc::SYS_write, file, value.as_ptr(), value.count_bytes());
    kernel::close(file);
    written.map(drop)
}

pub(super) fn sysfs(root: RawFd) -> Result<()> {
    place(root, kernel::new_mount(c"sysfs", &[], KERNEL_FS)?, c"sys")
}

pub(super) fn cgroup(root: RawFd) -> Result<()> {
    place(root, kernel::new_mount(c"cgroup2", &[], KERNEL_FS)?, c"sys/fs/cgroup")
}

/// One superblock for /dev, /dev/shm and /tmp: superblocks are the larger part of what an idle container costs.
pub(super) fn tmpfs(bytes_max: u64, owner: u32) -> Result<()> {
    let (size, owner_text) = (Decimal::new(bytes_max), Decimal::new(u64::from(owner)));
    let options: [(&CStr, Option<&CStr>); 4] = [
        (c"size", Some(size.as_c_str())),
        (c"mode", Some(c"0755")),
        (c"uid", Some(owner_text.as_c_str())),
        (c"gid", Some(owner_text.as_c_str())),
    ];
    let tree = kernel::new_mount(c"tmpfs", &options, 0)?;
    let target = kernel::open_own(TMPFS, libc::O_PATH)?;
    kernel::attach(tree, target)?;
    kernel::close(target);
    for (name, mode) in [(c"dev", 0o755), (c"shm", 0o1777), (c"tmp", 0o1777)] {
        kernel::call!(libc::SYS_mkdirat, tree, name.as_ptr(), mode)?;
        own(tree, name, owner)?;
    }
    kernel::close(tree);
    Ok(())
}

fn own(directory: RawFd, name: &CStr, owner: u32) -> Result<()> {
    kernel::call!(libc::SYS_fchownat, directory, name.as_ptr(), owner, owner, libc::AT_SYMLINK_NOFOLLOW)
        .map(drop)
}

/// A clone of one part of the tmpfs.
fn part(path: &CStr, attributes: u64) -> Result<RawFd> {
    let tree = kernel::clone_tree(libc::AT_FDCWD, path)?;
    kernel::restrict(tree, attributes)?;
    Ok(tree)
}

pub(super) fn dev(root: RawFd, nodes: &[(CString, u32, u32)], owner: u32) -> Result<()> {
    let tree = part(c"/tmpfs/dev", ATTR_NOSUID)?;
    as_owner(owner, || fill_dev(tree, nodes))?;
    place(root, tree, c"dev")
}

fn fill_dev(tree: RawFd, nodes: &[(CString, u32, u32)]) -> Result<()> {
    for (name, major, minor) in nodes {
        let device = libc::makedev(*major, *minor);
        kernel::call!(libc::SYS_mknodat, tree, name.as_ptr(), libc::S_IFCHR | 0o666, device)?;
    }
    for name in [c"pts", c"shm"] {
        kernel::call!(libc::SYS_mkdirat, tree, name.as_ptr(), 0o755)?;
    }
    for (target, name) in [
        (c"/proc/self/fd", c"fd"),
        (c"/proc/self/fd/0", c"stdin"),
        (c"/proc/self/fd/1", c"stdout"),
        (c"/proc/self/fd/2", c"stderr"),
        (c"pts/ptmx", c"ptmx"),
    ] {
        kernel::call!(libc::SYS_symlinkat, target.as_ptr(), tree, name.as_ptr())?;
    }
    Ok(())
}

pub(super) fn devpts(root: RawFd, tty_group: u32) -> Result<()> {
    let group = Decimal::new(u64::from(tty_group));
    let options: [(&CStr, Option<&CStr>); 3] =
        [(c"ptmxmode", Some(c"0666")), (c"mode", Some(c"0620")), (c"gid", Some(group.as_c_str()))];
    place(root, kernel::new_mount(c"devpts", &options, ATTR_NOSUID | ATTR_NOEXEC)?, c"dev/pts")
}

pub(super) fn shm(root: RawFd) -> Result<()> {
    place(root, part(c"/tmpfs/shm", KERNEL_FS)?, c"dev/shm")
}

pub(super) fn tmp(root: RawFd) -> Result<()> {
    place(root, part(c"/tmpfs/tmp", ATTR_NOSUID | ATTR_NODEV)?, c"tmp")
}

pub(super) fn bind(root: RawFd, tree: RawFd, idmap: Option<RawFd>, path: &CStr, owner: u32) -> Result<()> {
    if let Some(user_namespace) = idmap {
        kernel::idmap(tree, user_namespace)?;
    }
    kernel::restrict(tree, ATTR_NOSUID | ATTR_NODEV)?;
    match kernel::open_beneath(root, path, libc::O_PATH) {
        Ok(found) => kernel::close(found),
        Err(Errno(libc::ENOENT)) => directory(root, path, owner)?,
        Err(errno) => return Err(errno),
    }
    place(root, tree, path)
}

pub(super) fn restrict(root: RawFd, path: &CStr, attributes: u64) -> Result<()> {
    let target = kernel::open_beneath(root, path, libc::O_PATH)?;
    let restricted = kernel::restrict(target, attributes);
    kernel::close(target);
    restricted
}

/// A mount point is made read-only as it is; anything else gets a read-only mount of itself on top.
pub(super) fn read_only(root: RawFd, path: &CStr) -> Result<()> {
    let target = match kernel::open_beneath(root, path, libc::O_PATH) {
        Err(Errno(libc::ENOENT)) => return Ok(()),
        other => other?,
    };
    let made = match kernel::restrict(target, ATTR_RDONLY) {
        Err(Errno(libc::EINVAL)) => kernel::clone_tree(target, c"").and_then(|tree| {
            let attached = kernel::restrict(tree, ATTR_RDONLY).and_then(|()| kernel::attach(tree, target));
            kernel::close(tree);
            attached
        }),
        other => other,
    };
    kernel::close(target);
    made
}

/// The empty file or directory comes from the skeleton, which no image can reach.
pub(super) fn mask(root: RawFd, path: &CStr) -> Result<()> {
    let target = match kernel::open_beneath(root, path, libc::O_PATH) {
        Err(Errno(libc::ENOENT)) => return Ok(()),
        other => other?,
    };
    let masked = is_directory(target).and_then(|directory| {
        let empty = if directory { c"/empty/directory" } else { c"/empty/file" };
        let tree = kernel::clone_tree(libc::AT_FDCWD, empty)?;
        let attached = kernel::attach(tree, target);
        kernel::close(tree);
        attached
    });
    kernel::close(target);
    masked
}

fn is_directory(fd: RawFd) -> Result<bool> {
    // SAFETY: stat is plain numbers, for which zero is valid.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    kernel::call!(libc::SYS_fstat, fd, &raw mut found)?;
    Ok(found.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

//! The skeleton: a mount namespace of one small read-only tmpfs with mount points for layers, scratch and root, and the
//! empty file and directory that masks are made of. Every container starts from a copy of it, so neither copying nor
//! tearing down costs more on a host with many mounts, and nothing of the host is ever within a container's reach.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_wire::launch::LAYERS_MAX;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Makes the skeleton. `anchor` is any directory; it is only covered inside the new namespace.
///
/// # Errors
/// What the kernel refused, with what was tried.
pub fn make(anchor: &Path) -> io::Result<OwnedFd> {
    let own: OwnedFd = File::open("/proc/self/ns/mnt")?.into();
    // SAFETY: the launcher has one thread, so no other is surprised by another mount namespace; descriptors stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|e| context("unshare the mount namespace", e))?;
    let made = build(anchor);
    // Back again even if building failed; this also restores root and working directory.
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(|e| context("return to the host's mount namespace", e))?;
    made
}

fn build(anchor: &Path) -> io::Result<OwnedFd> {
    let made: OwnedFd = File::open("/proc/self/ns/mnt")?.into();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|e| context("make mounts private", e))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", anchor, "tmpfs", flags, Some(c"mode=0755,size=1m"))
        .map_err(|e| context("mount a tmpfs", e))?;
    for name in ["layers", "scratch", "root", "tmpfs", "empty", "empty/directory"] {
        std::fs::create_dir(anchor.join(name))?;
    }
    for number in 0..LAYERS_MAX {
        std::fs::create_dir(anchor.join("layers").join(number.to_string()))?;
    }
    File::create(anchor.join("empty/file"))?;
    mount_remount(anchor, flags | MountFlags::RDONLY, c"")
        .map_err(|e| context("make the tmpfs read-only", e))?;
    chdir(anchor)?;
    pivot_root(".", ".").map_err(|e| context("pivot into the tmpfs", e))?;
    unmount(".", UnmountFlags::DETACH).map_err(|e| context("detach the host's mounts", e))?;
    Ok(made)
}

fn context(action: &str, errno: rustix::io::Errno) -> io::Error {
    let error = io::Error::from(errno);
    io::Error::new(error.kind(), format!("skeleton: {action}: {error}"))
}

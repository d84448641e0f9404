//! The container's root: the skeleton is entered, layers and scratch are attached in it, the overlay of them is mounted, and at
//! the end it becomes `/` and everything else is gone. Layers are attached, not handed to overlay by descriptor, because kernels
//! before 6.15 refuse detached layers.

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::State;
use super::identity::as_owner;
use crate::kernel::{self, Decimal, Errno, Result};

/// Where the overlay is mounted in the skeleton.
const ROOT: &CStr = c"/root";

/// Private uppers never need to survive a crash of the host (`volatile`: no sync of every tenant's files on each unmount); nothing an
/// image could carry as extended attributes redirects a lookup or splits metadata from content.
const OPTIONS: &[u8] =
    b",upperdir=/scratch/upper,workdir=/scratch/work,volatile,redirect_dir=nofollow,metacopy=off,index=off,xino=off\0";

/// Enters the launcher's skeleton, a mount namespace of one tmpfs, and takes a copy: far cheaper to copy and to tear down
/// than the host's mounts.
pub(super) fn enter_skeleton(skeleton: RawFd) -> Result<()> {
    kernel::call!(libc::SYS_setns, skeleton, libc::CLONE_NEWNS)?;
    kernel::call!(libc::SYS_unshare, libc::CLONE_NEWNS).map(drop)
}

pub(super) fn layer(state: &mut State<'_>, tree: RawFd, idmap: Option<RawFd>) -> Result<()> {
    if state.layers >= berth_wire::launch::LAYERS_MAX {
        return Err(Errno(libc::E2BIG));
    }
    let mut path = [0u8; 32];
    write_layer_path(&mut path, state.layers);
    state.layers += 1;
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| Errno(libc::EINVAL))?;
    attach_mapped(tree, idmap, path)
}

pub(super) fn scratch(tree: RawFd, idmap: Option<RawFd>) -> Result<()> {
    attach_mapped(tree, idmap, c"/scratch")
}

fn attach_mapped(tree: RawFd, idmap: Option<RawFd>, path: &CStr) -> Result<()> {
    match idmap {
        Some(user_namespace) => kernel::idmap(tree, user_namespace)?,
        None => kernel::restrict(tree, 0)?,
    }
    let target = kernel::open_own(path, libc::O_PATH)?;
    let attached = kernel::attach(tree, target);
    kernel::close(target);
    attached
}

/// `/layers/N` and a NUL; returns the length without it.
fn write_layer_path(buffer: &mut [u8], number: usize) -> usize {
    let number = Decimal::new(number as u64);
    let mut length = 0;
    for byte in b"/layers/".iter().chain(number.as_c_str().to_bytes()) {
        buffer[length] = *byte;
        length += 1;
    }
    buffer[length] = 0;
    length
}

/// The overlay works on its upper with the credentials of whoever mounted it, so that must be somebody who can own files there.
pub(super) fn overlay(state: &mut State<'_>, owner: u32) -> Result<()> {
    // 127 layers of at most 12 bytes, and the options: well under the page that mount(2) takes.
    let mut options = [0u8; 4096];
    let mut length = 0;
    for byte in b"lowerdir=" {
        options[length] = *byte;
        length += 1;
    }
    for number in (0..state.layers).rev() {
        length += write_layer_path(&mut options[length..], number);
        options[length] = b':';
        length += 1;
    }
    length -= 1;
    options[length..length + OPTIONS.len()].copy_from_slice(OPTIONS);
    let kind = c"overlay".as_ptr();
    as_owner(owner, || kernel::call!(libc::SYS_mount, kind, ROOT.as_ptr(), kind, 0, options.as_ptr()))?;
    state.root = kernel::open_own(ROOT, libc::O_PATH | libc::O_DIRECTORY)?;
    Ok(())
}

pub(super) fn pivot(state: &mut State<'_>) -> Result<()> {
    kernel::call!(libc::SYS_fchdir, state.root)?;
    kernel::call!(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr())?;
    // The old root is now mounted over the new one, at the same place.
    kernel::call!(libc::SYS_umount2, c".".as_ptr(), libc::MNT_DETACH)?;
    kernel::close(state.root);
    state.root = -1;
    kernel::call!(libc::SYS_chdir, c"/".as_ptr()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_paths_must_end_in_nul() {
        let mut buffer = [1u8; 32];
        assert_eq!(write_layer_path(&mut buffer, 126), 11);
        assert_eq!(&buffer[..12], b"/layers/126\0");
    }
}

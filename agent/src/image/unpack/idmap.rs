//! The unpacker's user ids: its namespace gets one range, and the directory a mount on which that range is 0..65536.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::mount::{OpenTreeFlags, open_tree};

use crate::installation::UIDS_PER_CONTAINER;

// linux/mount.h
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Gives the process's fresh user namespace its range, and returns a detached, idmapped clone of the directory's mount.
/// Identical maps for users and groups.
pub(super) fn confine(pid: u32, uid_base: u32, directory: &Path) -> io::Result<OwnedFd> {
    let process = Path::new("/proc").join(pid.to_string());
    let map = format!("0 {uid_base} {UIDS_PER_CONTAINER}");
    fs::write(process.join("uid_map"), &map)?;
    fs::write(process.join("gid_map"), &map)?;
    let namespace = File::open(process.join("ns/user"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, directory, flags)?;
    let attributes = libc::mount_attr {
        attr_set: MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_raw_fd().cast_unsigned()),
    };
    // SAFETY: the path is a C string, the attributes are live and their size is passed; the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as libc::c_uint,
            std::ptr::from_ref(&attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(tree) } else { Err(io::Error::last_os_error()) }
}

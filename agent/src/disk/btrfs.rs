//! The btrfs ioctls Berth uses (linux/btrfs.h), each a function. No policy.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const MAGIC: u64 = 0x94;
const READ: u64 = 2;
const WRITE: u64 = 1;

/// asm-generic/ioctl.h, _IOC; the same on x86-64 and aarch64.
const fn request<T>(direction: u64, number: u64) -> u64 {
    direction << 30 | (size_of::<T>() as u64) << 16 | MAGIC << 8 | number
}

#[repr(C)]
struct VolumeArguments {
    fd: i64,
    name: [u8; 4_088],
}

#[repr(C)]
struct QuotaArguments {
    command: u64,
    status: u64,
}

#[repr(C)]
#[derive(Default)]
struct LimitArguments {
    group: u64,
    flags: u64,
    referenced_max: u64,
    exclusive_max: u64,
    referenced_reserved: u64,
    exclusive_reserved: u64,
}

#[repr(C)]
struct GroupArguments {
    create: u64,
    group: u64,
}

#[repr(C)]
struct AssignArguments {
    assign: u64,
    member: u64,
    group: u64,
}

#[repr(C)]
struct LookupArguments {
    tree: u64,
    object: u64,
    name: [u8; 4_080],
}

#[repr(C)]
struct InfoArguments {
    id_max: u64,
    devices: u64,
    uuid: [u8; 16],
    rest: [u8; 992],
}

const SUBVOLUME_CREATE: u64 = request::<VolumeArguments>(WRITE, 14);
const SUBVOLUME_DESTROY: u64 = request::<VolumeArguments>(WRITE, 15);
const RESIZE: u64 = request::<VolumeArguments>(WRITE, 3);
const LOOKUP: u64 = request::<LookupArguments>(READ | WRITE, 18);
const INFO: u64 = request::<InfoArguments>(READ, 31);
const QUOTA: u64 = request::<QuotaArguments>(READ | WRITE, 40);
const ASSIGN: u64 = request::<AssignArguments>(WRITE, 41);
const GROUP: u64 = request::<GroupArguments>(WRITE, 42);
const LIMIT: u64 = request::<LimitArguments>(READ, 43);

const QUOTA_ENABLE: u64 = 1;
const QUOTA_ENABLE_SIMPLE: u64 = 4;
const LIMIT_REFERENCED: u64 = 1;
const FIRST_FREE_OBJECT: u64 = 256;

fn ioctl<T>(on: &File, request: u64, arguments: &mut T) -> io::Result<()> {
    // SAFETY: each request above encodes the size of exactly the struct it is called with, which is live and exclusively
    // borrowed for the call, and all of whose bit patterns are valid.
    let result = unsafe { libc::ioctl(on.as_raw_fd(), request as _, std::ptr::from_mut(arguments)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn volume(name: &OsStr) -> io::Result<Box<VolumeArguments>> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > 255 || bytes.contains(&b'/') {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename));
    }
    let mut arguments = Box::new(VolumeArguments { fd: 0, name: [0; 4_088] });
    arguments.name[..bytes.len()].copy_from_slice(bytes);
    Ok(arguments)
}

fn parent_and_name(path: &Path) -> io::Result<(File, &OsStr)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidFilename);
    Ok((File::open(path.parent().ok_or_else(invalid)?)?, path.file_name().ok_or_else(invalid)?))
}

/// Makes a subvolume.
pub(crate) fn subvolume_create(path: &Path) -> io::Result<()> {
    let (parent, name) = parent_and_name(path)?;
    ioctl(&parent, SUBVOLUME_CREATE, &mut *volume(name)?)
}

/// Removes a subvolume with all that is in it.
pub(crate) fn subvolume_destroy(path: &Path) -> io::Result<()> {
    let (parent, name) = parent_and_name(path)?;
    ioctl(&parent, SUBVOLUME_DESTROY, &mut *volume(name)?)
}

/// The id of the subvolume that a directory is in.
pub(crate) fn subvolume_id(path: &Path) -> io::Result<u64> {
    let mut arguments = Box::new(LookupArguments { tree: 0, object: FIRST_FREE_OBJECT, name: [0; 4_080] });
    ioctl(&File::open(path)?, LOOKUP, &mut *arguments)?;
    Ok(arguments.tree)
}

/// The file system's id as its directory under /sys/fs/btrfs is called.
pub(crate) fn uuid(path: &Path) -> io::Result<String> {
    let mut arguments = Box::new(InfoArguments { id_max: 0, devices: 0, uuid: [0; 16], rest: [0; 992] });
    ioctl(&File::open(path)?, INFO, &mut *arguments)?;
    Ok(uuid::Uuid::from_bytes(arguments.uuid).to_string())
}

/// Switches quotas on: simple ones, or full ones where the kernel (before 6.7) has no simple ones.
pub(crate) fn quota_enable(path: &Path) -> io::Result<()> {
    let root = File::open(path)?;
    let enable = |command| ioctl(&root, QUOTA, &mut QuotaArguments { command, status: 0 });
    enable(QUOTA_ENABLE_SIMPLE).or_else(|_| enable(QUOTA_ENABLE))
}

/// Limits a subvolume to so many bytes, or not at all.
pub(crate) fn limit(subvolume: &Path, bytes_max: Option<u64>) -> io::Result<()> {
    limit_group(&top(subvolume)?, subvolume_id(subvolume)?, bytes_max)
}

/// Limits a quota group, by a directory on the file system.
pub(crate) fn limit_group(root: &Path, group: u64, bytes_max: Option<u64>) -> io::Result<()> {
    // The value u64::MAX clears the limit (btrfs_limit_qgroup, CLEAR_VALUE).
    let referenced_max = bytes_max.unwrap_or(u64::MAX);
    let mut arguments =
        LimitArguments { group, flags: LIMIT_REFERENCED, referenced_max, ..LimitArguments::default() };
    ioctl(&File::open(root)?, LIMIT, &mut arguments)
}

/// The number of a group that has others as members; a subvolume's own group has the subvolume's number.
pub(crate) const fn group_of_groups(number: u64) -> u64 {
    1 << 48 | number
}

/// Makes a quota group; one that is there stays.
pub(crate) fn group_create(root: &Path, group: u64) -> io::Result<()> {
    let done = ioctl(&File::open(root)?, GROUP, &mut GroupArguments { create: 1, group });
    unless(io::ErrorKind::AlreadyExists, done)
}

/// Removes a subvolume's quota group; only works once the subvolume is gone for good.
pub(crate) fn group_remove(root: &Path, group: u64) -> io::Result<()> {
    ioctl(&File::open(root)?, GROUP, &mut GroupArguments { create: 0, group })
}

/// Makes what a subvolume holds count in a group of groups as well; idempotent.
pub(crate) fn join_group(subvolume: &Path, group: u64) -> io::Result<()> {
    let member = subvolume_id(subvolume)?;
    let done =
        ioctl(&File::open(top(subvolume)?)?, ASSIGN, &mut AssignArguments { assign: 1, member, group });
    unless(io::ErrorKind::AlreadyExists, done)
}

/// The opposite; idempotent.
pub(crate) fn leave_group(subvolume: &Path, group: u64) -> io::Result<()> {
    let member = subvolume_id(subvolume)?;
    let done =
        ioctl(&File::open(top(subvolume)?)?, ASSIGN, &mut AssignArguments { assign: 0, member, group });
    unless(io::ErrorKind::NotFound, done)
}

/// A directory of the top-level subvolume, which has no limit: a change is charged to the subvolume of the directory it is asked on,
/// and refused (EDQUOT) if that one is full.
fn top(path: &Path) -> io::Result<PathBuf> {
    const TOP_LEVEL: u64 = 5;
    let mut above = path.ancestors().skip(1);
    let found = above.find(|dir| subvolume_id(dir).is_ok_and(|id| id == TOP_LEVEL));
    found.map(Path::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn unless(harmless: io::ErrorKind, done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == harmless { Ok(()) } else { Err(error) })
}

/// Takes all of the device, which has grown.
pub(crate) fn grow(root: &Path) -> io::Result<()> {
    ioctl(&File::open(root)?, RESIZE, &mut *volume(OsStr::new("max"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_must_be_numbered_as_in_the_kernel_s_header() {
        // As printed by a C program that includes linux/btrfs.h.
        assert_eq!(SUBVOLUME_CREATE, 0x5000_940e);
        assert_eq!(SUBVOLUME_DESTROY, 0x5000_940f);
        assert_eq!(RESIZE, 0x5000_9403);
        assert_eq!(LOOKUP, 0xd000_9412);
        assert_eq!(INFO, 0x8400_941f);
        assert_eq!(QUOTA, 0xc010_9428);
        assert_eq!(ASSIGN, 0x4018_9429);
        assert_eq!(GROUP, 0x4010_942a);
        assert_eq!(LIMIT, 0x8030_942b);
    }
}

//! System calls that the child makes between clone and exec: thin, without allocation and without libc, errors as plain errno. What
//! they are used for is in `child/`.

use std::ffi::CStr;
use std::os::fd::RawFd;

use libc::{c_int, c_long, c_uint};

/// The kernel's reason for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// A result whose error is the kernel's.
pub type Result<T> = std::result::Result<T, Errno>;

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

/// No mount point is resolved through a symbolic link, whatever the image holds (openat2(2)).
const RESOLVE: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

const OPEN_TREE_CLONE: c_uint = 1;
const OPEN_TREE_CLOEXEC: c_uint = libc::O_CLOEXEC as c_uint;
const MOVE_MOUNT_BOTH_EMPTY: c_uint = 0x4 | 0x40;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;

/// Read-only.
pub const ATTR_RDONLY: u64 = 0x1;
/// Set-user-ID has no effect.
pub const ATTR_NOSUID: u64 = 0x2;
/// Device nodes have no effect.
pub const ATTR_NODEV: u64 = 0x4;
/// Nothing can be executed.
pub const ATTR_NOEXEC: u64 = 0x8;
/// Ids are shown through a user namespace's mapping.
const ATTR_IDMAP: u64 = 0x0010_0000;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// What clone3 takes (linux/sched.h, struct clone_args of 5.7).
#[repr(C)]
#[derive(Default)]
#[allow(missing_docs, reason = "clone(2) describes each")]
pub struct CloneArguments {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// An argument of a system call: what the kernel finds in one register.
pub trait Word {
    /// As the register holds it.
    fn word(self) -> usize;
}

macro_rules! words {
    ($($kind:ty),+) => { $(impl Word for $kind { fn word(self) -> usize { self as usize } })+ };
}
words!(i32, u32, i64, u64, usize);

impl<T> Word for *const T {
    fn word(self) -> usize {
        self as usize
    }
}

impl<T> Word for *mut T {
    fn word(self) -> usize {
        self as usize
    }
}

/// Without libc: a child that shares its maker's memory shares its errno, too.
///
/// # Safety
/// What the system call does with the arguments: every pointer among them is to a live value.
pub unsafe fn system_call(number: c_long, arguments: &[usize]) -> Result<c_long> {
    let mut words = [0; 6];
    words[..arguments.len()].copy_from_slice(arguments);
    // SAFETY: the caller's promise.
    told(unsafe { registers(number, words) })
}

/// The kernel's answer: the last 4,095 numbers are its reasons, negated.
pub fn told(result: c_long) -> Result<c_long> {
    if (-4_095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result) }
}

#[cfg(target_arch = "x86_64")]
unsafe fn registers(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> c_long {
    let result;
    // SAFETY: the x86-64 system call convention; the kernel writes only to what the arguments point to.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn registers(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> c_long {
    let result;
    // SAFETY: the aarch64 system call convention; the kernel writes only to what the arguments point to.
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
            in("x4") e, in("x5") f, options(nostack));
    }
    result
}

macro_rules! call {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        // SAFETY: every pointer among the arguments is to a live value or a NUL-terminated string.
        unsafe { $crate::kernel::system_call($number, &[$($crate::kernel::Word::word($argument)),*]) }
    };
}
pub(crate) use call;

/// Opens a path beneath `root`, following nothing.
pub fn open_beneath(root: RawFd, path: &CStr, flags: c_int) -> Result<RawFd> {
    open_resolving(root, path, flags, RESOLVE)
}

fn open_resolving(at: RawFd, path: &CStr, flags: c_int, resolve: u64) -> Result<RawFd> {
    // SAFETY: open_how is plain numbers, for which zero is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = resolve;
    let size = std::mem::size_of::<libc::open_how>();
    call!(libc::SYS_openat2, at, path.as_ptr(), &raw const how, size).map(|fd| fd as RawFd)
}

/// Opens a path of the root that this process has, following what the container's own programs would, but no magic link.
pub fn open_inside(path: &CStr, flags: c_int) -> Result<RawFd> {
    open_resolving(libc::AT_FDCWD, path, flags, libc::RESOLVE_NO_MAGICLINKS)
}

/// The same for a path in which nothing is followed.
pub fn open_inside_exactly(path: &CStr, flags: c_int) -> Result<RawFd> {
    open_resolving(libc::AT_FDCWD, path, flags, libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS)
}

/// Opens a path below a directory, on the same mount.
pub fn open_within(directory: RawFd, path: &CStr, flags: c_int) -> Result<RawFd> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS;
    open_resolving(directory, path, flags, resolve)
}

/// Opens an absolute path of the launcher's own skeleton.
pub fn open_own(path: &CStr, flags: c_int) -> Result<RawFd> {
    call!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags | libc::O_CLOEXEC, 0).map(|fd| fd as RawFd)
}

/// Closes a descriptor; there is nothing to do about a failure.
pub fn close(fd: RawFd) {
    let _ = call!(libc::SYS_close, fd);
}

/// Which kind of file system it is on (statfs(2), f_type).
pub fn file_system(fd: RawFd) -> Result<i64> {
    // SAFETY: statfs is plain numbers, for which zero is valid.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    call!(libc::SYS_fstatfs, fd, &raw mut found)?;
    Ok(found.f_type)
}

/// A detached copy of the mount that a path is on, with the path as its root.
pub fn clone_tree(directory: RawFd, path: &CStr) -> Result<RawFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as c_uint;
    call!(libc::SYS_open_tree, directory, path.as_ptr(), flags).map(|fd| fd as RawFd)
}

/// Attaches a detached mount over an open target.
pub fn attach(tree: RawFd, target: RawFd) -> Result<()> {
    call!(libc::SYS_move_mount, tree, c"".as_ptr(), target, c"".as_ptr(), MOVE_MOUNT_BOTH_EMPTY).map(drop)
}

/// What the host's mount was a peer of, its clone is not: on a host whose mounts are shared (systemd makes them so), what is mounted
/// below it in a container would otherwise appear on the host.
const PRIVATE: u64 = libc::MS_PRIVATE;

/// Adds attributes to a mount, and takes it out of its peer group.
pub fn restrict(mount: RawFd, attributes: u64) -> Result<()> {
    set_attributes(mount, &MountAttr { set: attributes, clear: 0, propagation: PRIVATE, userns_fd: 0 })
}

/// Shows on-disk ids through the mapping of a user namespace, and takes the mount out of its peer group.
pub fn idmap(mount: RawFd, user_namespace: RawFd) -> Result<()> {
    let userns_fd = user_namespace as u64;
    set_attributes(mount, &MountAttr { set: ATTR_IDMAP, clear: 0, propagation: PRIVATE, userns_fd })
}

fn set_attributes(mount: RawFd, attributes: &MountAttr) -> Result<()> {
    let size = std::mem::size_of::<MountAttr>();
    call!(libc::SYS_mount_setattr, mount, c"".as_ptr(), libc::AT_EMPTY_PATH, &raw const *attributes, size)
        .map(drop)
}

/// A new file system, not attached anywhere. An option without value is a flag.
pub fn new_mount(kind: &CStr, options: &[(&CStr, Option<&CStr>)], attributes: u64) -> Result<RawFd> {
    let context = call!(libc::SYS_fsopen, kind.as_ptr(), 1)? as RawFd;
    let made = configure(context, options).and_then(|()| call!(libc::SYS_fsmount, context, 1, attributes));
    close(context);
    made.map(|fd| fd as RawFd)
}

fn configure(context: RawFd, options: &[(&CStr, Option<&CStr>)]) -> Result<()> {
    let none = std::ptr::null::<libc::c_char>();
    for (key, value) in options {
        let (command, value) = match value {
            Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
            None => (FSCONFIG_SET_FLAG, none),
        };
        call!(libc::SYS_fsconfig, context, command, key.as_ptr(), value, 0)?;
    }
    call!(libc::SYS_fsconfig, context, FSCONFIG_CMD_CREATE, none, none, 0).map(drop)
}

/// A decimal number as a C string, without allocation.
pub struct Decimal {
    digits: [u8; 21],
    start: usize,
}

impl Decimal {
    /// Writes the number.
    pub fn new(mut number: u64) -> Self {
        let mut digits = [0u8; 21];
        let mut start = 20;
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { digits, start };
            }
        }
    }

    /// The number's text.
    pub fn as_c_str(&self) -> &CStr {
        // The last byte is never written by `new`, so there is a NUL.
        CStr::from_bytes_until_nul(&self.digits[self.start..]).unwrap_or(c"0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_must_be_written_in_full() {
        for number in [0, 7, 10, 65_536, u64::MAX] {
            assert_eq!(Decimal::new(number).as_c_str().to_str().unwrap(), number.to_string());
        }
    }
}

//! A terminal for the command, made inside the container out of its own devpts. Neither end is ever opened by the name
//! /dev/pts/N: whatever a container does to its /dev in the meantime, what is connected is what was made (CVE-2025-52565).

use std::os::fd::RawFd;

use crate::kernel::{self, Errno, Result};

/// statfs(2): a devpts file system.
const DEVPTS_MAGIC: i64 = 0x1cd1;
/// ioctl_tty(2); the same numbers on x86-64 and aarch64.
const TIOCSCTTY: u64 = 0x540E;
const TIOCSWINSZ: u64 = 0x5414;
const TIOCGPTPEER: u64 = 0x5441;
const TIOCSPTLCK: u64 = 0x4004_5431;

/// Opens it, sends the master out, and connects 0, 1 and 2. The process must lead a session.
pub(super) fn open(socket: RawFd, rows: u16, columns: u16) -> Result<()> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = kernel::open_inside_exactly(c"/dev/pts/ptmx", flags)?;
    must_be_devpts(master)?;
    let unlocked: libc::c_int = 0;
    kernel::call!(libc::SYS_ioctl, master, TIOCSPTLCK, &raw const unlocked)?;
    let slave = kernel::call!(libc::SYS_ioctl, master, TIOCGPTPEER, flags | libc::O_CLOEXEC)? as RawFd;
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    kernel::call!(libc::SYS_ioctl, master, TIOCSWINSZ, &raw const size)?;
    send(socket, master)?;
    kernel::close(master);
    kernel::call!(libc::SYS_ioctl, slave, TIOCSCTTY, 0)?;
    for target in 0..3 {
        kernel::call!(libc::SYS_dup3, slave, target, 0)?;
    }
    kernel::close(slave);
    Ok(())
}

fn must_be_devpts(fd: RawFd) -> Result<()> {
    if kernel::file_system(fd)? == DEVPTS_MAGIC { Ok(()) } else { Err(Errno(libc::ENOTTY)) }
}

/// One byte with one descriptor beside it (unix(7), SCM_RIGHTS).
fn send(socket: RawFd, fd: RawFd) -> Result<()> {
    #[repr(C, align(8))]
    struct Space([u8; 64]);
    let mut space = Space([0; 64]);
    let mut byte = [b't'];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: msghdr is plain data; every pointer in it is to a local that lives across the call. The space is aligned as a
    // control message must be and larger than one with one descriptor (24 bytes), so that CMSG_FIRSTHDR is not null.
    let message = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = space.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        message
    };
    kernel::call!(libc::SYS_sendmsg, socket, &raw const message, libc::MSG_NOSIGNAL).map(drop)
}

//! The standard streams of a command that somebody is attached to: pipes whose inner ends belong to the command's user, so
//! that it can open /dev/stdout again; or a terminal, whose master the command's own child opens inside the container and
//! sends out here through a socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use berth_wire::attach::TerminalSize;
use rustix::fs::{Gid, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ends that are kept.
#[derive(Debug)]
pub struct OuterPipes {
    /// What the command reads.
    pub stdin: OwnedFd,
    /// What it writes.
    pub stdout: OwnedFd,
    /// What it complains.
    pub stderr: OwnedFd,
}

/// Ends that the command gets.
#[derive(Debug)]
pub struct InnerPipes {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// Makes three pipes.
///
/// # Errors
/// The kernel's refusal.
pub fn pipes() -> io::Result<(OuterPipes, InnerPipes)> {
    let (stdin, stdin_kept) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdout_kept, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr_kept, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let outer = OuterPipes { stdin: stdin_kept, stdout: stdout_kept, stderr: stderr_kept };
    Ok((outer, InnerPipes { stdin, stdout, stderr }))
}

/// Gives a stream to a user, by the kernel's ids.
///
/// # Errors
/// The kernel's refusal.
pub fn give_to(stream: impl AsFd, user: u32, group: u32) -> io::Result<()> {
    Ok(fchown(stream, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?)
}

/// Two ends of a way for a terminal's master: the one that is kept, and the one for the command's child.
///
/// # Errors
/// The kernel's refusal.
pub fn terminal_socket() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

/// The master, which was sent before the command was executed.
///
/// # Errors
/// It was not sent, or the kernel's refusal.
pub fn receive_terminal(socket: &OwnedFd) -> io::Result<Terminal> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let sent = ancillary.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Terminal::new(sent.ok_or(io::ErrorKind::UnexpectedEof)?)
}

/// The master of a terminal, without blocking.
#[derive(Debug)]
pub struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    /// Takes the master over.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn new(master: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&master)?;
        fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        // SAFETY: an OwnedFd always gives the same descriptor, which stays open for as long as the AsyncFd owns it.
        Ok(Self(unsafe { AsyncFd::register(master) }?))
    }

    /// What it shows; nothing once the last process inside has closed it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut *buffer)?)).await;
        match read {
            // Linux says so where others say end of file (pty(7) has it under "hangup").
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }

    /// What is typed; says how much of it was taken.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?)).await
    }

    /// Gives it another size; the kernel tells the processes (SIGWINCH).
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let size =
            rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.0.get_ref(), size)?)
    }
}

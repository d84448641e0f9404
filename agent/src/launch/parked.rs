//! The agent's end of a process that the launcher parked in a container's v1 cgroups.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The process: it ends once this is dropped, if it was not used.
#[derive(Debug)]
pub struct Parked {
    pub(super) socket: OwnedFd,
    pub(super) process: OwnedFd,
}

impl Parked {
    /// Waits until it is in the groups.
    ///
    /// # Errors
    /// It could not join them.
    pub async fn joined(&self) -> io::Result<()> {
        readable(&self.socket).await?;
        let mut packet = [0; 16];
        // The flag, not the descriptor: the launcher uses the same open socket, and waits on it.
        match recv(&self.socket, &mut packet, RecvFlags::DONTWAIT)? {
            (_, 0) => Err(io::Error::other("a process could not be parked in the container's v1 cgroups")),
            _ => Ok(()),
        }
    }

    /// What the launcher takes to use it.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Ends it; its groups can be removed then.
    pub async fn end(self) {
        let Self { socket, process } = self;
        drop(socket);
        // An error here shows again when the groups cannot be removed.
        let _ = readable(&process).await;
    }
}

async fn readable(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the borrow outlives the registration, which ends with this function.
    let watched = unsafe { AsyncFd::register_with_interest(fd.as_fd(), Interest::READABLE) }?;
    watched.readable().await.map(drop)
}

//! One connection to the launcher: packets with descriptors over a SEQPACKET socket, asynchronously.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use berth_wire::launch::{DESCRIPTORS_MAX, PACKET_BYTES_MAX, Packet, Request};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};
use tokio::io::unix::AsyncFd;

/// The connection.
#[derive(Debug)]
pub(super) struct Connection(AsyncFd<OwnedFd>);

impl Connection {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        // SAFETY: an OwnedFd always gives the same descriptor, which stays open for as long as the AsyncFd owns it.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    pub(super) async fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(request)?;
        let attempt = |socket: &OwnedFd| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        self.0.async_io(tokio::io::Interest::WRITABLE, attempt).await
    }

    /// The next packet; an error at the end of the connection.
    pub(super) async fn receive(&self) -> io::Result<(Packet, Vec<OwnedFd>)> {
        let attempt = |socket: &OwnedFd| {
            let mut bytes = vec![0u8; PACKET_BYTES_MAX];
            // An answer carries two descriptors at most.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let slices = &mut [IoSliceMut::new(&mut bytes)];
            let message = recvmsg(socket, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
            let mut descriptors = Vec::new();
            for part in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = part {
                    descriptors.extend(fds);
                }
            }
            if message.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok((serde_json::from_slice(&bytes[..message.bytes])?, descriptors))
        };
        self.0.async_io(tokio::io::Interest::READABLE, attempt).await
    }
}

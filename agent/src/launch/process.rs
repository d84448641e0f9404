//! A process of a container, by its pidfd: signals to it and its end, without the launcher and whatever becomes of its number.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// pidfd_send_signal(2), since 6.9: to the process group whose leader it is.
const PROCESS_GROUP: u32 = 1 << 2;

/// The process.
#[derive(Debug)]
pub struct Process(AsyncFd<OwnedFd>);

impl Process {
    /// Takes a pidfd over.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn new(pidfd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd always gives the same descriptor, which stays open for as long as the AsyncFd owns it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?))
    }

    /// Completes when it has ended.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn ended(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// Sends a signal to the whole group that it leads; before 6.9, to it alone. One that has ended is no error.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn signal(&self, number: u8) -> io::Result<()> {
        match self.send(number, PROCESS_GROUP) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.send(number, 0),
            other => other,
        }
    }

    fn send(&self, number: u8, flags: u32) -> io::Result<()> {
        let (pidfd, none) = (self.0.get_ref().as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: numbers, and no siginfo.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, pidfd, libc::c_int::from(number), none, flags)
        };
        match io::Error::last_os_error() {
            _ if sent == 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }
}

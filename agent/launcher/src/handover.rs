//! What a launcher hands to the program that replaces it in place (execve): its listening sockets and the agent's connections stay
//! open, so no request is refused and none is lost; one that was not read yet is read by the new program. Which descriptors
//! they are stands in a sealed memfd whose number is in the environment. Containers are not in it: they stay children of this
//! process, and are found as after a crash.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::event::epoll;
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

use crate::edge::Edge;
use crate::memory_file;
use crate::server::{End, Server};

/// The environment variable with the memfd's number; not for the edge.
pub const VARIABLE: &str = "BERTH_LAUNCHER_HANDOVER";

/// The numbers, as they stand in the memfd.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Numbers {
    listener: RawFd,
    connections: Vec<RawFd>,
    edge: Option<RawFd>,
}

/// What stays open.
pub struct Handover<'a> {
    /// Where agents connect.
    pub listener: BorrowedFd<'a>,
    /// Those that are connected.
    pub connections: Vec<BorrowedFd<'a>>,
    /// Where the edge listens.
    pub edge: Option<BorrowedFd<'a>>,
}

/// What the program before this one kept open.
#[derive(Debug)]
pub struct Inherited {
    /// Where agents connect.
    pub listener: OwnedFd,
    /// Those that are connected.
    pub connections: Vec<OwnedFd>,
    /// Where the edge listens.
    pub edge: Option<OwnedFd>,
}

impl Handover<'_> {
    /// Becomes the program, with these arguments (the first is its name). Comes back only if that failed; everything is then as before.
    pub fn execute(&self, program: &Path, arguments: &[OsString]) -> io::Error {
        let (Err(error) | Ok(error)) = self.try_execute(program, arguments);
        error
    }

    fn try_execute(&self, program: &Path, arguments: &[OsString]) -> io::Result<io::Error> {
        let numbers = Numbers {
            listener: self.listener.as_raw_fd(),
            connections: self.connections.iter().map(AsRawFd::as_raw_fd).collect(),
            edge: self.edge.map(|fd| fd.as_raw_fd()),
        };
        let file = memory_file::sealed(c"berth-handover", &serde_json::to_vec(&numbers)?)?;
        let kept = || self.connections.iter().copied().chain([self.listener, file.as_fd()]).chain(self.edge);
        let (program, arguments) = (text(program.as_os_str().to_owned())?, texts(arguments.iter().cloned())?);
        let environment = environment(file.as_raw_fd())?;
        kept().try_for_each(|fd| rustix::io::fcntl_setfd(fd, FdFlags::empty()))?;
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        // Not std's exec: it would unblock the signals that arrive meanwhile, and the first would end the new program.
        // SAFETY: both lists are of C strings that live until the call returns, and end with a null pointer.
        unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        let error = io::Error::last_os_error();
        // They are open and ours: this cannot fail, and the reason for the failure is the one to tell.
        for fd in kept() {
            let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
        Ok(error)
    }
}

impl Inherited {
    /// What the environment says was handed over; none if nothing was.
    ///
    /// # Errors
    /// The variable is set, but not by a launcher that became this one.
    pub fn take() -> io::Result<Option<Self>> {
        let Some(value) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let invalid =
            || io::Error::new(io::ErrorKind::InvalidInput, format!("{VARIABLE} is not for people: unset it"));
        let number: RawFd = value.to_str().and_then(|text| text.parse().ok()).ok_or_else(invalid)?;
        let file = owned(number).map_err(|_| invalid())?;
        let numbers: Numbers = serde_json::from_slice(&memory_file::read(&file)?)?;
        Ok(Some(Self {
            listener: owned(numbers.listener)?,
            connections: numbers.connections.into_iter().map(owned).collect::<io::Result<_>>()?,
            edge: numbers.edge.map(owned).transpose()?,
        }))
    }
}

impl Server {
    /// What the program that replaces this one is to have.
    pub fn handover(&self) -> Handover<'_> {
        Handover {
            listener: self.listener.as_fd(),
            connections: self.connections.values().map(AsFd::as_fd).collect(),
            edge: self.edge.as_ref().map(Edge::listener),
        }
    }

    /// Leaves connections and requests waiting, for the program that replaces this one.
    pub(crate) fn upgrade(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(End::Upgrade);
        for fd in self.connections.values().chain([&self.listener]) {
            // What is not watched need not be taken out.
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    /// The program could not be replaced: serves on.
    ///
    /// # Errors
    /// epoll itself failing.
    pub fn go_on(&mut self) -> io::Result<()> {
        self.end = None;
        self.hear()
    }
}

/// The descriptor of this number, which must be open and one that survives execve: this program opens none of those itself.
fn owned(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes any number.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if number <= 2 || flags == -1 || flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and whoever executed us left it to us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

fn environment(file: RawFd) -> io::Result<Vec<CString>> {
    let kept = std::env::vars_os().filter(|(key, _)| key.as_bytes() != VARIABLE.as_bytes());
    let entries = kept.map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat());
    let ours = format!("{VARIABLE}={file}").into_bytes();
    texts(entries.chain([ours]).map(OsString::from_vec))
}

fn text(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn texts(list: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    list.map(text).collect()
}

fn pointers(list: &[CString]) -> Vec<*const libc::c_char> {
    list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_be_executed_must_leave_everything_as_it_was() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let handover = Handover { listener: one.as_fd(), connections: vec![other.as_fd()], edge: None };
        let error = handover.execute(Path::new("/no/such/program"), &["launcher".into()]);
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        for fd in [one.as_fd(), other.as_fd()] {
            assert_eq!(rustix::io::fcntl_getfd(fd).unwrap(), FdFlags::CLOEXEC);
        }
    }

    #[test]
    fn a_descriptor_that_nobody_handed_over_must_be_refused() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        for number in [-1, 0, 2, one.as_raw_fd(), 1_000_000] {
            assert!(owned(number).is_err(), "{number}");
        }
    }
}

//! Memfds: made, sealed and read. What is in them is others' business.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Most bytes read from a memfd that somebody sent: the largest plan is 127 layers and as many binds, under 64 KiB.
pub const BYTES_MAX: u64 = 1024 * 1024;

/// What nobody can take back or change any more.
const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// A sealed memfd with this content.
///
/// # Errors
/// The kernel's refusal.
pub fn sealed(name: &std::ffi::CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let fd = create(name, 0)?;
    fill_and_seal(fd, content)
}

/// A sealed memfd that anybody may execute and nobody but root of the host may read: whoever executes it cannot be
/// dumped or traced from inside a container.
///
/// # Errors
/// The kernel's refusal.
pub fn executable(name: &std::ffi::CStr, content: &[u8]) -> io::Result<OwnedFd> {
    const MFD_EXEC: u32 = 0x10;
    // MFD_EXEC is of 6.3; before that every memfd was executable.
    let fd = create(name, MFD_EXEC).or_else(|_| create(name, 0))?;
    // SAFETY: fchmod takes a descriptor and a mode.
    if unsafe { libc::fchmod(fd.as_raw_fd(), 0o111) } != 0 {
        return Err(io::Error::last_os_error());
    }
    fill_and_seal(fd, content)
}

fn create(name: &std::ffi::CStr, flags: u32) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string; the descriptor that comes back is ours.
    unsafe {
        match libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | flags) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

fn fill_and_seal(fd: OwnedFd, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(fd);
    file.write_all(content)?;
    file.seek(SeekFrom::Start(0))?;
    // SAFETY: F_ADD_SEALS takes a number.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file.into())
}

/// The content of a memfd, from its start; refuses one that is larger than [`BYTES_MAX`].
///
/// # Errors
/// Too large, or the kernel's refusal.
pub fn read(fd: impl AsFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(fd.as_fd().try_clone_to_owned()?);
    let length = file.metadata()?.len();
    if length > BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{length} bytes is more than {BYTES_MAX}"),
        ));
    }
    file.seek(SeekFrom::Start(0))?;
    let mut content = Vec::with_capacity(length as usize);
    file.take(BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_must_be_readable_and_never_writable() {
        let fd = sealed(c"test", b"content").unwrap();
        assert_eq!(read(&fd).unwrap(), b"content");
        let mut file = File::from(fd);
        assert!(file.write_all(b"x").is_err());
    }
}

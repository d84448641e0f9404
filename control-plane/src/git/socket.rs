//! The private socket between hooks and `berthd`. A socket's path is limited to 107 bytes (unix(7)) and a data
//! directory's is not, so both sides reach it through a descriptor of its folder.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::protocol::SOCKET;

fn short(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// Binds in a folder that only this user can enter, in place of what an earlier process left there.
pub fn bind(dir: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(dir.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(short(&File::open(dir)?))?;
    std::fs::set_permissions(dir.join(SOCKET), std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects.
pub fn connect(dir: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(short(&File::open(dir)?))
}

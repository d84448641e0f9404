//! The compiled seccomp filter as a sealed file, made once per process and lent to every launch.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use super::parcel::sealed_file;
use crate::bundle::seccomp;

static FILE: OnceLock<OwnedFd> = OnceLock::new();

/// A descriptor of the file.
///
/// # Errors
/// The kernel's refusal to make it.
pub fn seccomp_file() -> io::Result<OwnedFd> {
    if let Some(file) = FILE.get() {
        return file.try_clone();
    }
    let program =
        seccomp::compile().map_err(|error| io::Error::other(format!("compile the filter: {error}")))?;
    let file = sealed_file(c"berth-seccomp", &seccomp::encode(&program))?;
    FILE.get_or_init(|| file).try_clone()
}

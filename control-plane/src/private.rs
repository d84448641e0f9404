//! Files and folders that only the user of this process may read. The data directory is closed as a whole; what is in it
//! is closed as well, for the day on which somebody copies it elsewhere.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes a folder (with those above it) or closes one that is there.
///
/// # Errors
/// It can be neither made nor closed.
pub fn dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Makes an empty file or closes one that is there; its content stays.
///
/// # Errors
/// It can be neither made nor closed.
pub fn file(path: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    close(path)
}

/// Closes a file if it is there.
///
/// # Errors
/// It cannot be closed.
pub fn close(path: &Path) -> io::Result<()> {
    match fs::set_permissions(path, Permissions::from_mode(0o600)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_left_open_must_be_closed() {
        let place = tempfile::tempdir().unwrap();
        let (dir_path, file_path) = (place.path().join("a/b"), place.path().join("f"));
        fs::create_dir_all(&dir_path).unwrap();
        fs::write(&file_path, "kept").unwrap();
        fs::set_permissions(&file_path, Permissions::from_mode(0o644)).unwrap();
        dir(&dir_path).unwrap();
        file(&file_path).unwrap();
        close(&place.path().join("none")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir_path), mode(&file_path)), (0o700, 0o600));
        assert_eq!(fs::read(&file_path).unwrap(), b"kept");
    }
}

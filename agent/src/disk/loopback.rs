//! Loop devices (loop(4), linux/loop.h): attach an image file so that it detaches by itself with its last user.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const GET_FREE: u64 = 0x4c82;
const CONFIGURE: u64 = 0x4c0a;
const FLAG_AUTOCLEAR: u32 = 4;
const FLAG_DIRECT_IO: u32 = 16;
/// As large as btrfs's sectors; direct I/O needs it to be no less than the backing disk's.
const BLOCK_BYTES: u32 = 4_096;
/// Between asking for a free device and taking it somebody else may have; each try asks anew.
const TRIES_MAX: u32 = 32;

#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    device_of_node: u64,
    offset: u64,
    size_max: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_bytes: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct Config {
    fd: u32,
    block_bytes: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A device with the image in it. It must stay open until the device is mounted.
#[derive(Debug)]
pub(super) struct Device {
    pub path: PathBuf,
    _file: File,
}

/// Attaches the image, or finds the device it is in already.
pub(super) fn attach(image: &Path) -> io::Result<Device> {
    if let Some(path) = find(image)? {
        // It may detach itself at this moment; then opening it gives an empty device, and mounting fails.
        return Ok(Device { _file: File::options().read(true).write(true).open(&path)?, path });
    }
    let backing = File::options().read(true).write(true).open(image)?;
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..TRIES_MAX {
        // SAFETY: the request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let file = File::options().read(true).write(true).open(&path)?;
        match configure(&file, &backing) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            done => return done.map(|()| Device { path, _file: file }),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

fn configure(device: &File, backing: &File) -> io::Result<()> {
    let mut config = Config {
        fd: backing.as_raw_fd().cast_unsigned(),
        block_bytes: BLOCK_BYTES,
        info: Info {
            device: 0,
            inode: 0,
            device_of_node: 0,
            offset: 0,
            size_max: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_bytes: 0,
            // Direct: the pool's pages are cached once, by btrfs, and not again as the image's.
            flags: FLAG_AUTOCLEAR | FLAG_DIRECT_IO,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: the argument is a live `struct loop_config` of the kernel's layout; both descriptors are open.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, std::ptr::from_mut(&mut config)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The device the image is in, by what sysfs says is behind each.
pub(super) fn find(image: &Path) -> io::Result<Option<PathBuf>> {
    let wanted = fs::metadata(image)?;
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let Ok(backing) = fs::read_to_string(entry.path().join("loop/backing_file")) else { continue };
        let same = fs::metadata(backing.trim_end_matches('\n'))
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()));
        if same {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_must_have_the_kernel_s_size() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }
}

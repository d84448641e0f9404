//! The pool itself: making, mounting, growing and closing it, and the spaces in it. Synchronous; callers give it a thread.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

use berth_wire::quota::Bounds;

use super::shares::Shares;
use super::spaces::Spaces;
use super::{DiskError, LAYERS, Scratch, btrfs, io_error, loopback};

/// Least size: mkfs.btrfs wants 109 MiB, and one default app's disk must fit beside it.
pub(super) const BYTES_MIN: u64 = 256 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Pool {
    dir: PathBuf,
    spaces: Spaces,
}

impl Pool {
    pub(super) fn open(label: &str, data_dir: &Path, shares: Shares) -> Result<Self, DiskError> {
        let bytes = shares.pool_bytes;
        if bytes < BYTES_MIN {
            return Err(DiskError::PoolTooSmall(bytes));
        }
        let dir = data_dir.join("pool");
        make_private(&dir)?;
        let dir = fs::canonicalize(&dir).map_err(io_error("resolve", &dir))?;
        let image = dir.with_file_name("pool.img");
        if !image.exists() {
            make_image(label, &image, bytes)?;
        }
        // One that an older version made was readable by everybody.
        fs::set_permissions(&image, fs::Permissions::from_mode(0o600))
            .map_err(io_error("make private", &image))?;
        let mounted = mounted_at(&dir)?;
        let grown = mounted.is_none() && grow_image(&image, bytes)?;
        match mounted {
            None => mount_image(&image, &dir)?,
            Some(device) => {
                // Left mounted by an agent that crashed: the same image, or nothing we may touch.
                let ours = loopback::find(&image).map_err(io_error("find the loop device of", &image))?;
                if ours.as_deref() != Some(Path::new(&device)) {
                    return Err(DiskError::Foreign(dir));
                }
            }
        }
        if grown {
            btrfs::grow(&dir).map_err(io_error("enlarge", &dir))?;
        }
        btrfs::quota_enable(&dir).map_err(io_error("enable quotas on", &dir))?;
        let instances = dir.join("instances");
        make_private(&instances)?;
        let layers = dir.join("layers");
        match btrfs::subvolume_create(&layers) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => done.map_err(io_error("make subvolume", &layers))?,
        }
        let spaces = Spaces::open(&dir, &instances, shares)?;
        // Not a subvolume in a pool of an older version: its layers then count only as those that were built here.
        if is_subvolume(&layers) {
            btrfs::join_group(&layers, LAYERS).map_err(io_error("count", &layers))?;
        }
        Ok(Self { dir, spaces })
    }

    pub(super) fn instances_dir(&self) -> PathBuf {
        self.dir.join("instances")
    }

    pub(super) fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// Each step is skipped if it has been done, so that a half-made space is completed.
    pub(super) fn make_space(&self, scratch: &Scratch, bounds: Bounds) -> Result<(), DiskError> {
        match btrfs::subvolume_create(&scratch.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => done.map_err(io_error("make subvolume", &scratch.dir))?,
        }
        for dir in [&scratch.upper, &scratch.work] {
            match fs::DirBuilder::new().mode(0o755).create(dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => done.map_err(io_error("make directory", dir))?,
            }
        }
        // Last: until it counts among the others, nothing of theirs can keep it from being made.
        self.spaces.admit(&scratch.dir, bounds)
    }

    pub(super) fn remove_space(&self, dir: &Path) -> Result<(), DiskError> {
        self.spaces.forget(dir);
        let group = btrfs::subvolume_id(dir);
        match btrfs::subvolume_destroy(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => done.map_err(io_error("remove subvolume", dir))?,
        }
        // Simple quotas drop the group with the last of the subvolume; on full ones it may have to wait (EBUSY) and is
        // then a line in a table: nothing is charged to it.
        if let Ok(group) = group {
            let _ = btrfs::group_remove(&self.dir, group);
        }
        Ok(())
    }

    pub(super) fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    pub(super) fn device(&self) -> Result<(u32, u32), DiskError> {
        let image = self.dir.with_file_name("pool.img");
        let failed = || io_error("find the loop device of", &image);
        let path = loopback::find(&image).map_err(failed())?;
        let path = path.ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))?;
        let node = rustix::fs::stat(&path).map_err(|errno| failed()(errno.into()))?;
        Ok((rustix::fs::major(node.st_rdev), rustix::fs::minor(node.st_rdev)))
    }

    pub(super) fn space(&self) -> Result<(u64, u64), DiskError> {
        let fs = rustix::fs::statvfs(&self.dir).map_err(|e| io_error("statfs", &self.dir)(e.into()))?;
        Ok((fs.f_blocks * fs.f_frsize, fs.f_bavail * fs.f_frsize))
    }

    pub(super) fn close(&self) -> Result<(), DiskError> {
        if mounted_at(&self.dir)?.is_none() {
            return Ok(());
        }
        unmount(&self.dir, UnmountFlags::empty()).map_err(|e| io_error("unmount", &self.dir)(e.into()))
    }
}

fn make_private(dir: &Path) -> Result<(), DiskError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(io_error("make directory", dir))
}

/// The root of a subvolume has a number of its own (BTRFS_FIRST_FREE_OBJECTID).
fn is_subvolume(dir: &Path) -> bool {
    const INODE: u64 = 256;
    fs::metadata(dir).is_ok_and(|meta| std::os::unix::fs::MetadataExt::ino(&meta) == INODE)
}

/// Makes the image under another name first: a crash on the way leaves nothing that looks like a pool.
fn make_image(label: &str, image: &Path, bytes: u64) -> Result<(), DiskError> {
    let new = image.with_extension("img.new");
    let made = allocate(&new, bytes).and_then(|()| format(label, &new));
    if let Err(error) = made {
        // The first error is the one to tell.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    fs::rename(&new, image).map_err(io_error("rename to", image))
}

fn allocate(image: &Path, bytes: u64) -> Result<(), DiskError> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(image)
        .map_err(io_error("create", image))?;
    match rustix::fs::fallocate(file.as_fd(), rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::NOSPC) => {
            let dir = image.parent().unwrap_or(image).to_owned();
            Err(DiskError::HostFull { dir, bytes })
        }
        done => done.map_err(|errno| io_error("preallocate", image)(errno.into())),
    }
}

/// Single metadata: two copies on one disk save nobody. No discard (`-K`): it would punch holes into what was just allocated.
fn format(label: &str, image: &Path) -> Result<(), DiskError> {
    let output = Command::new("mkfs.btrfs")
        .args(["--quiet", "--nodiscard", "--metadata", "single", "--data", "single", "--label", label])
        .arg(image)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| DiskError::Format(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(DiskError::Format(said.lines().next_back().unwrap_or("failed without a word").to_owned()))
}

/// Says whether the image is larger now.
fn grow_image(image: &Path, bytes: u64) -> Result<bool, DiskError> {
    let length = fs::metadata(image).map_err(io_error("look at", image))?.len();
    if bytes <= length {
        return Ok(false);
    }
    allocate(image, bytes)?;
    Ok(true)
}

fn mount_image(image: &Path, dir: &Path) -> Result<(), DiskError> {
    let device = loopback::attach(image).map_err(io_error("attach to a loop device", image))?;
    // No discard: it would give the image's preallocated blocks back to the host.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    mount(&device.path, dir, "btrfs", flags, c"nodiscard").map_err(|e| io_error("mount", dir)(e.into()))?;
    mount_change(dir, MountPropagationFlags::PRIVATE).map_err(|e| io_error("make private", dir)(e.into()))
}

/// The source of the topmost mount at a directory.
fn mounted_at(dir: &Path) -> Result<Option<String>, DiskError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(io_error("read", table))?;
    Ok(source_of(&text, &dir.to_string_lossy()))
}

/// proc_pid_mountinfo(5); blanks in names are written `\040`.
fn source_of(mountinfo: &str, point: &str) -> Option<String> {
    let point = point.replace('\\', "\\134").replace(' ', "\\040");
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some(&point))?;
    Some(line.split_once(" - ")?.1.split(' ').nth(1)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_must_be_found() {
        let text = "1 0 0:1 / / rw - ext4 /dev/vda rw\n\
            2 1 0:2 / /a\\040b/pool rw - tmpfs none rw\n\
            3 2 0:3 / /a\\040b/pool rw shared:1 master:2 - btrfs /dev/loop3 rw\n";
        assert_eq!(source_of(text, "/a b/pool").as_deref(), Some("/dev/loop3"));
        assert_eq!(source_of(text, "/a"), None);
    }
}

//! Files that are to be covered, read-only or not there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Outcome, found, io_result};

pub fn attempt(name: &str, arguments: &[&str]) -> Option<Outcome> {
    let path = arguments.first().copied().unwrap_or_default();
    let second = arguments.get(1).copied().unwrap_or_default();
    Some(match name {
        "see" => see(path),
        // Nothing of a kernel file system belongs to the container; that it is read-only as well is told by which refusal comes first.
        "chmod" => io_result(fs::set_permissions(path, fs::Permissions::from_mode(0o777))),
        "open" => io_result(fs::File::open(path)),
        "list" => io_result(fs::read_dir(path)),
        "write" => io_result(fs::write(path, second)),
        "make a directory" => io_result(fs::create_dir(path)),
        "link" => io_result(std::os::unix::fs::symlink(second, path)),
        // PATH TEXT: whether the file holds it.
        "read" => found(fs::read_to_string(path).is_ok_and(|text| text.contains(second))),
        "run a set-user-ID program" => set_user_id(path),
        "swap a name for a terminal" => swap_terminal(),
        "another terminal" => {
            // Any character device of devpts has a major number from 136 on (admin-guide/devices.txt).
            let about = fs::metadata("/proc/self/fd/0").map(|about| std::os::unix::fs::MetadataExt::rdev(&about) >> 8);
            found(about.is_ok_and(|major| major != 136))
        }
        "watch commands start" => watch(),
        "swap a directory and a link" => swap(path, second),
        _ => return None,
    })
}

/// Something is behind this path.
fn see(path: &str) -> Outcome {
    let Ok(about) = fs::metadata(path) else { return found(false) };
    if about.is_dir() {
        return found(fs::read_dir(path).map_err(|e| e.raw_os_error().unwrap_or(1))?.next().is_some());
    }
    let mut file = fs::File::open(path).map_err(|error| error.raw_os_error().unwrap_or(1))?;
    let read = std::io::Read::read(&mut file, &mut [0; 64]);
    found(read.map_err(|error| error.raw_os_error().unwrap_or(1))? > 0)
}

/// Runs PATH, a copy of this program that belongs to root and is set-user-ID; it says who it is.
fn set_user_id(path: &str) -> Outcome {
    let said = std::process::Command::new(path).arg("who").status();
    found(said.map_err(|error| error.raw_os_error().unwrap_or(1))?.code() == Some(0))
}

/// For a minute, unless it is killed before, as fast as it can: PATH is a directory, PATH is the link beside it.
fn swap(path: &str, beside: &str) -> Outcome {
    unsafe extern "C" {
        fn renameat2(from: i32, old: *const i8, to: i32, new: *const i8, flags: u32) -> i32;
    }
    const HERE: i32 = -100;
    const EXCHANGE: u32 = 2;
    let (Ok(path), Ok(beside)) = (std::ffi::CString::new(path), std::ffi::CString::new(beside)) else {
        return Err(super::MALFORMED);
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::time::Instant::now() < end {
        // SAFETY: NUL-terminated strings.
        let swapped = unsafe { renameat2(HERE, path.as_ptr().cast(), HERE, beside.as_ptr().cast(), EXCHANGE) };
        super::number(swapped.into())?;
    }
    Ok(())
}

/// Root inside owns the names in /dev.
fn swap_terminal() -> Outcome {
    io_result(std::os::unix::fs::symlink("null", "/dev/mine"))?;
    swap("/dev/ptmx", "/dev/mine")
}

/// For two seconds: opens the program, the descriptors, the root and the working directory of whatever process is neither init nor
/// this one. A command that has become one is the probe and open to its own user; until then nothing of it must be.
fn watch() -> Outcome {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
    let own = std::process::id();
    while std::time::Instant::now() < end {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in processes.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok()) {
            if pid == 1 || pid == own {
                continue;
            }
            if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| !program.ends_with("bin/probe")) {
                return Ok(());
            }
            for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
                let path = fs::read_link(descriptor.path()).unwrap_or_default();
                let harmless = path.as_os_str().is_empty() || ["null", "probe"].iter().any(|end| path.ends_with(end));
                if !harmless && fs::metadata(descriptor.path()).is_ok_and(|about| about.is_dir()) {
                    return Ok(());
                }
            }
        }
    }
    found(false)
}

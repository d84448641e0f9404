//! Compressed swap in memory (admin-guide/blockdev/zram.rst): one device of our own, made only if the operator chose it and removed with
//! all else. Its number is written down before it is used, so that whoever comes next finds it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::libc;

const CONTROL: &str = "/sys/class/zram-control";
/// Below what any administrator sets by hand: other swap goes first only if it says so.
const PRIORITY: i32 = 100;
/// linux/swap.h: SWAP_FLAG_PREFER.
const PREFER: i32 = 0x8000;

/// Our device.
#[derive(Debug)]
pub struct Zram {
    number: u32,
    record: PathBuf,
}

/// What compressed swap takes and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZramUse {
    /// Bytes that are in it.
    pub original_bytes: u64,
    /// Bytes of memory that it takes for them.
    pub used_bytes: u64,
}

/// Whether the kernel can make such devices.
pub fn is_possible() -> bool {
    Path::new(CONTROL).join("hot_add").exists()
}

/// All of the machine's memory, in bytes.
///
/// # Errors
/// The kernel does not say.
pub fn memory_bytes() -> io::Result<u64> {
    let pages = nix::unistd::sysconf(nix::unistd::SysconfVar::_PHYS_PAGES)?.unwrap_or(0);
    Ok(pages.unsigned_abs() * rustix::param::page_size() as u64)
}

impl Zram {
    /// The device that `record` names, or a new one of so many bytes, in use as swap.
    ///
    /// # Errors
    /// The kernel's refusal; what was made is removed again.
    pub fn set_up(record: &Path, bytes: u64) -> io::Result<Self> {
        if let Some(found) = Self::find(record) {
            if found.is_swap() {
                return Ok(found);
            }
            found.remove()?;
        }
        let number = fs::read_to_string(Path::new(CONTROL).join("hot_add"))?;
        let number = number.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let new = Self { number, record: record.to_owned() };
        match fs::write(record, number.to_string()).and_then(|()| new.begin(bytes)) {
            Ok(()) => Ok(new),
            Err(error) => {
                // The first error is the one to tell.
                let _ = new.remove();
                Err(error)
            }
        }
    }

    /// The device that `record` names, if there is one.
    pub fn find(record: &Path) -> Option<Self> {
        let number = fs::read_to_string(record).ok()?.trim().parse().ok()?;
        let found = Self { number, record: record.to_owned() };
        if !found.sys().exists() {
            let _ = fs::remove_file(record);
            return None;
        }
        Some(found)
    }

    fn begin(&self, bytes: u64) -> io::Result<()> {
        // The fastest to read from; a kernel without it keeps its default.
        let _ = fs::write(self.sys().join("comp_algorithm"), "lz4");
        fs::write(self.sys().join("disksize"), bytes.to_string())?;
        let made = Command::new("mkswap")
            .arg("--quiet")
            .arg(self.node())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !made.success() {
            return Err(io::Error::other(format!("mkswap {} failed", self.node())));
        }
        let node = std::ffi::CString::new(self.node())?;
        // SAFETY: a string that lives during the call, and flags.
        match unsafe { libc::swapon(node.as_ptr(), PREFER | PRIORITY) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Takes everything out of it, back into memory, and removes it; idempotent.
    ///
    /// # Errors
    /// The kernel's refusal: not enough memory for what is in it.
    pub fn remove(self) -> io::Result<()> {
        if self.is_swap() {
            let node = std::ffi::CString::new(self.node())?;
            // SAFETY: a string that lives during the call.
            if unsafe { libc::swapoff(node.as_ptr()) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if self.sys().exists() {
            fs::write(self.sys().join("reset"), "1")?;
            fs::write(Path::new(CONTROL).join("hot_remove"), self.number.to_string())?;
        }
        fs::remove_file(&self.record)
    }

    /// What it holds and takes.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn usage(&self) -> io::Result<ZramUse> {
        let stat = fs::read_to_string(self.sys().join("mm_stat"))?;
        let mut numbers = stat.split_whitespace().map(|word| word.parse::<u64>().ok());
        let (original, used) = (numbers.next().flatten(), numbers.nth(1).flatten());
        match (original, used) {
            (Some(original_bytes), Some(used_bytes)) => Ok(ZramUse { original_bytes, used_bytes }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn is_swap(&self) -> bool {
        let node = self.node();
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        swaps.lines().any(|line| line.split_whitespace().next() == Some(&node))
    }

    fn node(&self) -> String {
        format!("/dev/zram{}", self.number)
    }

    fn sys(&self) -> PathBuf {
        PathBuf::from(format!("/sys/block/zram{}", self.number))
    }
}

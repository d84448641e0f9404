//! A container's directory under `instances/ID/`: all that a launcher must know to take over from one that died. `meta.json` (who and
//! where), `output` (the FIFO that the container writes to), `status` (four bytes that init writes when the main process
//! ended), `discarded` (a count). It lasts as long as the container is remembered.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_wire::id::InstanceId;
use berth_wire::launch::OutputFile;
use berth_wire::report::Exit;
use rustix::fs::{FileType, Mode};
use serde::{Deserialize, Serialize};

/// Who a container is, as kept in `meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Which.
    pub id: InstanceId,
    /// The first id of its range.
    pub uid_base: u32,
    /// Its init; 0 while it is not cloned yet.
    pub pid: u32,
    /// When that process started, in clock ticks since boot: a reused pid has another.
    pub start_ticks: u64,
    /// Which boot.
    pub boot_id: String,
    /// Where its output goes.
    pub output: Option<OutputFile>,
}

/// The directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceDir(PathBuf);

impl InstanceDir {
    /// The directory of this container.
    pub fn new(instances: &Path, id: InstanceId) -> Self {
        Self(instances.join(id.to_string()))
    }

    /// Makes it, with an empty status file and, if there is an output file, the FIFO. Until `meta.json` is written it is one that was
    /// never finished.
    ///
    /// # Errors
    /// `AlreadyExists`, or the kernel's refusal.
    pub fn create(&self, meta: &Meta) -> io::Result<()> {
        fs::create_dir(&self.0)?;
        File::create(self.0.join("status"))?;
        if meta.output.is_some() {
            let fifo = self.fifo();
            rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
            // Whoever the container's processes become, they may open /dev/stdout again; the directory is root's alone.
            rustix::fs::chmod(&fifo, Mode::from_raw_mode(0o666))?;
        }
        Ok(())
    }

    /// Writes `meta.json`, once: half-written after a crash, it is as if it were not there.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn write_meta(&self, meta: &Meta) -> io::Result<()> {
        fs::write(self.0.join("meta.json"), serde_json::to_vec(meta)?)
    }

    /// Reads `meta.json`.
    ///
    /// # Errors
    /// A directory that was never finished.
    pub fn read_meta(&self) -> io::Result<Meta> {
        Ok(serde_json::from_slice(&fs::read(self.0.join("meta.json"))?)?)
    }

    /// The status file, for init.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn status_writer(&self) -> io::Result<OwnedFd> {
        Ok(OpenOptions::new().write(true).open(self.0.join("status"))?.into())
    }

    /// How the main process ended, if init could say.
    pub fn status(&self) -> Option<Exit> {
        let bytes: [u8; 4] = fs::read(self.0.join("status")).ok()?.try_into().ok()?;
        Some(decode(i32::from_ne_bytes(bytes)))
    }

    /// Both ends in one descriptor, for the container: whoever has it can never be told that nobody reads (SIGPIPE), as it
    /// is a reader itself.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn output_writer(&self) -> io::Result<OwnedFd> {
        Ok(OpenOptions::new().read(true).write(true).open(self.fifo())?.into())
    }

    /// The reading end, for the launcher.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn output_reader(&self) -> io::Result<OwnedFd> {
        Ok(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(self.fifo())?.into())
    }

    /// Lines that were discarded so far.
    pub fn discarded(&self) -> u64 {
        fs::read_to_string(self.0.join("discarded"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Remembers that count. Failing to is no reason to stop: the count then starts again at an older value.
    pub fn write_discarded(&self, lines: u64) {
        let _ = fs::write(self.0.join("discarded"), lines.to_string());
    }

    /// Remembers how it ended, for a launcher that comes later.
    pub fn write_exit(&self, exit: Exit) {
        if let Ok(bytes) = serde_json::to_vec(&exit) {
            let _ = fs::write(self.0.join("exit.json"), bytes);
        }
    }

    /// How it ended, if a launcher saw it.
    pub fn read_exit(&self) -> Option<Exit> {
        serde_json::from_slice(&fs::read(self.0.join("exit.json")).ok()?).ok()
    }

    /// Removes it all; idempotent.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn fifo(&self) -> PathBuf {
        self.0.join("output")
    }
}

/// Reads a wait status (wait(2)).
pub fn decode(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status) as u8)
    } else {
        Exit::Code(libc::WEXITSTATUS(status) as u8)
    }
}

/// When a process started, in clock ticks since boot, and its parent; none if it is gone or a zombie.
pub fn process_facts(pid: u32) -> Option<(u64, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted from the last parenthesis (proc_pid_stat(5): 3 is the state).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(19)?.parse().ok()?, fields.get(1)?.parse().ok()?))
}

/// Which boot this is.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_must_be_told_apart() {
        assert_eq!(decode(0), Exit::Code(0));
        assert_eq!(decode(3 << 8), Exit::Code(3));
        assert_eq!(decode(9), Exit::Signal(9));
        assert_eq!(decode(11 | 0x80), Exit::Signal(11), "with a core dump");
    }

    #[test]
    fn what_a_directory_is_told_must_be_there_for_the_next_launcher() {
        let root = tempfile::tempdir().unwrap();
        let id = InstanceId(uuid::Uuid::nil());
        let output = OutputFile { path: "/x".into(), bytes_max: 1, lines_per_second: 1 };
        let mut meta =
            Meta { id, uid_base: 7, pid: 0, start_ticks: 0, boot_id: boot_id(), output: Some(output) };
        let dir = InstanceDir::new(root.path(), id);
        dir.create(&meta).unwrap();
        assert_eq!(dir.create(&meta).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        meta.pid = 42;
        dir.write_meta(&meta).unwrap();
        assert_eq!(dir.read_meta().unwrap(), meta);
        assert_eq!((dir.status(), dir.discarded(), dir.read_exit()), (None, 0, None));
        dir.write_discarded(12);
        dir.write_exit(Exit::Signal(15));
        assert_eq!((dir.discarded(), dir.read_exit()), (12, Some(Exit::Signal(15))));
        dir.remove().unwrap();
        dir.remove().unwrap();
    }

    #[test]
    fn a_living_process_must_have_its_parent_and_start() {
        let (start, parent) = process_facts(std::process::id()).unwrap();
        assert!(start > 0);
        assert_eq!(parent, std::os::unix::process::parent_id());
        assert_eq!(process_facts(u32::MAX), None);
    }
}

//! The containers that the launcher knows, and their life.
//!
//! ```text
//! launch ──> Starting ── report pipe ends ──> Running ── pidfd ──> Exited ── forget ──> (gone)
//!                │ a step failed                          ^
//!                └──> Failing ── pidfd ──> (gone)         │ found by a new launcher: Running or Exited
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_wire::id::InstanceId;
use berth_wire::launch::{Child, ChildState, LaunchFailure, OutputFile};
use berth_wire::report::Exit;

use crate::instance::{self, InstanceDir, Meta};
use crate::output::{Drain, Scratch, Turn};

/// Who waits for the answer to a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The connection.
    pub connection: u64,
    /// The request's number.
    pub number: u64,
}

/// How far a container is.
pub enum Life {
    /// Its steps are being carried out.
    Starting {
        /// Where it reports.
        report: File,
        /// What each operation is called.
        steps: Vec<String>,
        /// Who wants to know.
        asker: Asker,
    },
    /// A step failed; it is about to end.
    Failing {
        /// What to say.
        failure: LaunchFailure,
        /// To whom.
        asker: Asker,
    },
    /// Its command runs.
    Running,
    /// It ended.
    Exited(Exit),
}

/// One container.
pub struct Entry {
    /// Who it is.
    pub meta: Meta,
    /// Its directory.
    pub dir: InstanceDir,
    /// Its init; none once it is reaped.
    pub pidfd: Option<OwnedFd>,
    /// How far it is.
    pub life: Life,
    /// Its output, if the launcher drains it.
    pub drain: Option<Drain>,
    /// The count in the directory.
    saved_discarded: u64,
    /// Whether somebody asked for it to be killed.
    pub killed: bool,
}

impl Entry {
    /// A container that was just cloned.
    pub fn new(meta: Meta, dir: InstanceDir, pidfd: OwnedFd, life: Life, drain: Option<Drain>) -> Self {
        Self { meta, dir, pidfd: Some(pidfd), life, drain, saved_discarded: 0, killed: false }
    }

    /// Whether its command runs.
    pub fn is_running(&self) -> bool {
        matches!(self.life, Life::Running)
    }

    /// As it is told to others.
    pub fn describe(&self) -> Child {
        let state = match self.life {
            Life::Starting { .. } | Life::Failing { .. } => ChildState::Starting,
            Life::Running => ChildState::Running,
            Life::Exited(exit) => ChildState::Exited(exit),
        };
        let lines_discarded = self.drain.as_ref().map_or(self.saved_discarded, |drain| drain.discarded);
        Child { id: self.meta.id, pid: self.meta.pid, uid_base: self.meta.uid_base, state, lines_discarded }
    }

    /// Moves one turn of output; remembers how many lines were discarded.
    pub fn drain_turn(&mut self, scratch: &mut Scratch) -> Turn {
        let Some(drain) = &mut self.drain else { return Turn::Idle };
        let turn = drain.turn(scratch, false).unwrap_or(Turn::Idle);
        if drain.discarded != self.saved_discarded {
            self.saved_discarded = drain.discarded;
            self.dir.write_discarded(drain.discarded);
        }
        turn
    }

    /// Changes how many lines a second it may log, for this launcher and the next.
    ///
    /// # Errors
    /// The directory cannot be written to; the rate is what it was.
    pub fn set_log_rate(&mut self, lines_per_second: u32) -> io::Result<()> {
        let Some(output) = &self.meta.output else { return Ok(()) };
        let output = Some(OutputFile { lines_per_second, ..output.clone() });
        let meta = Meta { output, ..self.meta.clone() };
        self.dir.write_meta(&meta)?;
        self.meta = meta;
        if let Some(drain) = &mut self.drain {
            drain.set_rate(lines_per_second);
        }
        Ok(())
    }

    /// The process ended: collects how, and the rest of the output. A FIFO holds 64 KiB, so this ends.
    pub fn finish(&mut self, scratch: &mut Scratch) -> Exit {
        let reaped = self.pidfd.as_ref().and_then(how_it_ended);
        self.pidfd = None;
        while self.drain_turn(scratch) == Turn::More {}
        if let Some(mut drain) = self.drain.take() {
            while matches!(drain.turn(scratch, true), Ok(Turn::More)) {}
            if drain.discarded != self.saved_discarded {
                self.saved_discarded = drain.discarded;
                self.dir.write_discarded(drain.discarded);
            }
        }
        let killed = self.killed.then_some(Exit::Signal(libc::SIGKILL as u8));
        let exit = self.dir.status().or(reaped).or(killed).unwrap_or(Exit::Unknown);
        self.dir.write_exit(exit);
        exit
    }

    /// Waits until it ended, which a SIGKILL has seen to.
    pub fn reap(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        // SAFETY: waitid may be given no siginfo.
        unsafe {
            libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, std::ptr::null_mut(), libc::WEXITED)
        };
    }

    /// Sends a signal to init, which passes it on to the main process.
    ///
    /// # Errors
    /// ESRCH once it ended, or the kernel's refusal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let Some(pidfd) = &self.pidfd else { return Err(io::Error::from_raw_os_error(libc::ESRCH)) };
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: numbers, and no siginfo.
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Of a child of this process: its wait status. Of any other: what the kernel remembers (PIDFD_GET_INFO, 6.15).
pub(crate) fn how_it_ended(pidfd: &OwnedFd) -> Option<Exit> {
    // SAFETY: siginfo is plain data that waitid fills in.
    let info = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let waited = libc::waitid(
            libc::P_PIDFD,
            pidfd.as_raw_fd() as libc::id_t,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG,
        );
        (waited == 0 && info.si_signo == libc::SIGCHLD).then_some(info)
    };
    let Some(info) = info else { return remembered(pidfd) };
    // SAFETY: for SIGCHLD the status is set.
    let status = unsafe { info.si_status() };
    Some(match info.si_code {
        libc::CLD_EXITED => Exit::Code(status as u8),
        _ => Exit::Signal(status as u8),
    })
}

/// struct pidfd_info of 6.15 (linux/pidfd.h).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pids_and_ids: [u32; 11],
    exit_code: i32,
}

fn remembered(pidfd: &OwnedFd) -> Option<Exit> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    // _IOWR(PIDFS_IOCTL_MAGIC 0xFF, 11, 64 bytes)
    const PIDFD_GET_INFO: libc::c_ulong = 3 << 30 | 64 << 16 | 0xff << 8 | 11;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: a live structure of the 64 bytes that the number names.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then(|| instance::decode(info.exit_code))
}

/// All of them, by a number that is never used twice (what epoll hands back).
#[derive(Default)]
pub struct Children {
    /// The entries.
    pub entries: BTreeMap<u64, Entry>,
    by_id: BTreeMap<InstanceId, u64>,
    next: u64,
}

impl Children {
    /// Adds one; says under which number.
    pub fn insert(&mut self, entry: Entry) -> u64 {
        self.next += 1;
        self.by_id.insert(entry.meta.id, self.next);
        self.entries.insert(self.next, entry);
        self.next
    }

    /// The number of a container.
    pub fn number(&self, id: InstanceId) -> Option<u64> {
        self.by_id.get(&id).copied()
    }

    /// The container of this id.
    pub fn get_mut(&mut self, id: InstanceId) -> Option<&mut Entry> {
        self.number(id).and_then(|number| self.entries.get_mut(&number))
    }

    /// Takes one out.
    pub fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.by_id.remove(&entry.meta.id);
        Some(entry)
    }
}

/// Finds what an earlier launcher left: living containers, and those that ended meanwhile. Directories that were never
/// finished are removed.
///
/// # Errors
/// An unreadable directory.
pub fn scan(instances: &Path) -> io::Result<Vec<Entry>> {
    let boot_id = instance::boot_id();
    let mut found = Vec::new();
    for directory in fs::read_dir(instances)? {
        let directory = directory?;
        let Some(id) = directory.file_name().to_str().and_then(|name| name.parse::<InstanceId>().ok()) else {
            continue;
        };
        let dir = InstanceDir::new(instances, id);
        match dir.read_meta() {
            Ok(meta) if meta.pid != 0 && meta.boot_id == boot_id => found.push(adopt(meta, dir)),
            _ => dir.remove()?,
        }
    }
    Ok(found)
}

fn adopt(meta: Meta, dir: InstanceDir) -> Entry {
    let discarded = dir.discarded();
    let seen = dir.read_exit();
    let pidfd = if seen.is_some() { None } else { open_process(meta.pid, meta.start_ticks) };
    let drain = match (&meta.output, seen) {
        (Some(output), None) => dir.output_reader().ok().map(|fifo| Drain::new(fifo, output, discarded)),
        _ => None,
    };
    let life = seen.map_or(Life::Running, Life::Exited);
    Entry { meta, dir, pidfd, life, drain, saved_discarded: discarded, killed: false }
}

/// The process, if the pid is still its own: opened first, compared then, so that it cannot change in between.
pub(crate) fn open_process(pid: u32, start_ticks: u64) -> Option<OwnedFd> {
    let raw = rustix::process::Pid::from_raw(pid as i32)?;
    let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()).ok()?;
    let (started, _) = instance::process_facts(pid)?;
    (started == start_ticks).then_some(pidfd)
}

/// Where instances are kept in the launcher's directory; made if it is missing.
///
/// # Errors
/// The kernel's refusal.
pub fn instances_dir(dir: &Path) -> io::Result<PathBuf> {
    let instances = dir.join("instances");
    fs::create_dir_all(&instances)?;
    rustix::fs::chmod(&instances, rustix::fs::Mode::from_raw_mode(0o700))?;
    Ok(instances)
}

impl Entry {
    /// What epoll watches of it: the process.
    pub fn process(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }
}

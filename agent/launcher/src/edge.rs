//! The edge's supervisor: binds its address, starts it as an ordinary user with the listening socket as descriptor 3
//! (sd_listen_fds(3)), and starts it again when it ends. A launcher that comes after one that died takes the socket out of
//! the living edge (pidfd_getfd), so no connection notices.

use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{handover, instance, kernel};

/// First pause before a restart of one that ended at once; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Up for this long, an edge counts as well: it is started again at once. One that cannot serve ends within milliseconds.
const WELL_AFTER: Duration = Duration::from_secs(1);
/// Where the socket is passed.
const LISTEN_FD: i32 = 3;

/// How the edge is to be run.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// User and group that it runs as.
    pub user: u32,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// Who the running edge is, as kept in `edge.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    pid: u32,
    start_ticks: u64,
}

/// The supervisor.
pub struct Edge {
    config: EdgeConfig,
    record: PathBuf,
    listener: OwnedFd,
    process: Option<OwnedFd>,
    started: Instant,
    pause: Duration,
    due: Option<Instant>,
    fresh: bool,
}

impl Edge {
    /// Takes over the edge that runs already, with the socket that this process inherited or else the edge's own; binds the
    /// address if there is none.
    ///
    /// # Errors
    /// An address that is taken (D12).
    pub fn open(
        config: EdgeConfig,
        dir: &Path,
        inherited: Option<OwnedFd>,
        now: Instant,
    ) -> io::Result<Self> {
        let record = dir.join("edge.json");
        let process = recorded(&record);
        let own = || process.as_ref().and_then(|process| listener_of(process, config.listen));
        let (listener, process) = match inherited.or_else(own) {
            Some(listener) => (listener, process),
            None => (bind(config.listen)?, None),
        };
        let due = process.is_none().then_some(now);
        let fresh = process.is_some();
        Ok(Self { config, record, listener, process, started: now, pause: PAUSE_MIN, due, fresh })
    }

    /// Starts it if it is time to. Gives the process to be watched, once for each.
    pub fn start_if_due(&mut self, now: Instant) -> Option<BorrowedFd<'_>> {
        if self.due.is_some_and(|due| due <= now) {
            match self.spawn() {
                Ok(process) => {
                    (self.process, self.started, self.due, self.fresh) = (Some(process), now, None, true);
                }
                Err(error) => {
                    eprintln!("berth-launcher: starting the edge {:?}: {error}", self.config.command.first());
                    self.back_off(now);
                }
            }
        }
        if !std::mem::take(&mut self.fresh) {
            return None;
        }
        self.process.as_ref().map(AsFd::as_fd)
    }

    /// Where it listens.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Starts it in two steps: it becomes the edge only when it is written down who it is. A launcher that is killed in between
    /// leaves none that holds the address and that nobody finds again.
    fn spawn(&self) -> io::Result<OwnedFd> {
        let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (pid, process) = spawn(&self.config, self.listener.as_fd(), [&wait, &go])?;
        let start_ticks = instance::process_facts(pid).map_or(0, |(start, _)| start);
        let text = serde_json::to_vec(&Running { pid, start_ticks })?;
        let new = self.record.with_extension("new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.record));
        let told = written.and_then(|()| Ok(rustix::io::write(&go, b"1")?));
        if let Err(error) = told {
            drop(go);
            reap(&process, 0);
            return Err(error);
        }
        Ok(process)
    }

    /// It ended.
    pub fn ended(&mut self, now: Instant) {
        if let Some(process) = self.process.take() {
            reap(&process, libc::WNOHANG);
            if now.duration_since(self.started) >= WELL_AFTER {
                // Requests wait for it, and until it is there only this process holds their socket.
                eprintln!("berth-launcher: the edge ended; starting it again");
                (self.pause, self.due) = (PAUSE_MIN, Some(now));
                return;
            }
            eprintln!("berth-launcher: the edge ended; starting it again in {:?}", self.pause);
            self.back_off(now);
        }
    }

    fn back_off(&mut self, now: Instant) {
        self.due = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// How long until it is to be started.
    pub fn retry_in(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }

    /// Tells it to end, for good.
    pub fn stop(&mut self) {
        self.due = None;
        if let Some(process) = self.process.take() {
            let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::TERM);
        }
        let _ = fs::remove_file(&self.record);
    }
}

/// Takes the zombie away. An adopted edge is no child; then there is nothing to reap.
fn reap(process: &OwnedFd, options: i32) {
    // SAFETY: siginfo is plain data that waitid fills in.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let process = process.as_raw_fd() as libc::id_t;
        libc::waitid(libc::P_PIDFD, process, &raw mut info, libc::WEXITED | options);
    }
}

fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    // TcpListener sets SO_REUSEADDR.
    let listener = TcpListener::bind(address).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("D12: listen on {address}: {error}; free the port or choose another"),
        )
    })?;
    // A burst of new connections waits in the queue rather than being refused; the kernel cuts it to net.core.somaxconn.
    // SAFETY: numbers only.
    unsafe { libc::listen(listener.as_raw_fd(), 4_096) };
    Ok(listener.into())
}

/// The edge that an earlier launcher started: it lives, or is a zombie of ours.
fn recorded(record: &Path) -> Option<OwnedFd> {
    let running: Running = serde_json::from_slice(&fs::read(record).ok()?).ok()?;
    let pid = rustix::process::Pid::from_raw(running.pid as i32)?;
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    let (start_ticks, _) = instance::process_facts(running.pid)?;
    (start_ticks == running.start_ticks).then_some(process)
}

/// Its socket.
fn listener_of(process: &OwnedFd, address: SocketAddr) -> Option<OwnedFd> {
    let flags = rustix::process::PidfdGetfdFlags::empty();
    let listener: TcpListener = rustix::process::pidfd_getfd(process, LISTEN_FD, flags).ok()?.into();
    let same = listener.local_addr().is_ok_and(|found| found == address || address.port() == 0);
    same.then(|| listener.into())
}

/// Starts the edge: no privilege, only the socket, and LISTEN_PID as the convention wants it. It waits for a byte from `wait`, and
/// ends if that pipe does.
fn spawn(
    config: &EdgeConfig,
    listener: BorrowedFd<'_>,
    [wait, go]: [&OwnedFd; 2],
) -> io::Result<(u32, OwnedFd)> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let text = |text: &String| CString::new(text.as_bytes()).map_err(invalid);
    let arguments = config.command.iter().map(text).collect::<io::Result<Vec<_>>>()?;
    let mut variables: Vec<CString> = std::env::vars_os()
        .filter(|(key, _)| !key.to_string_lossy().starts_with("LISTEN_") && key != handover::VARIABLE)
        .filter_map(|(key, value)| {
            let mut entry = std::os::unix::ffi::OsStringExt::into_vec(key);
            entry.push(b'=');
            entry.extend(std::os::unix::ffi::OsStringExt::into_vec(value));
            CString::new(entry).ok()
        })
        .collect();
    variables.push(c"LISTEN_FDS=1".to_owned());
    // Room for the child's own pid, which only the child knows.
    let mut listen_pid = *b"LISTEN_PID=\0\0\0\0\0\0\0\0\0\0\0\0";
    let pointers = |list: &[CString]| list.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
    let mut argv = pointers(&arguments);
    argv.push(std::ptr::null());
    let mut envp = pointers(&variables);
    envp.push(listen_pid.as_ptr().cast());
    envp.push(std::ptr::null());
    let program = *argv.first().filter(|program| !program.is_null()).ok_or(io::ErrorKind::InvalidInput)?;
    let (listener, wait, go) = (listener.as_raw_fd(), wait.as_raw_fd(), go.as_raw_fd());
    let mut pidfd: libc::c_int = -1;
    // SAFETY: a fork of a process with one thread; the child makes system calls on memory prepared above and executes or ends.
    unsafe {
        match libc::syscall(libc::SYS_clone, libc::SIGCHLD | libc::CLONE_PIDFD, 0, &raw mut pidfd, 0, 0) {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let number = kernel::Decimal::new(libc::getpid() as u64);
                let digits = number.as_c_str().to_bytes();
                listen_pid[11..11 + digits.len()].copy_from_slice(digits);
                if may_go(wait, go) && become_edge(config.user, listener).is_ok() {
                    libc::execve(program, argv.as_ptr(), envp.as_ptr());
                }
                libc::_exit(127)
            }
            pid => Ok((pid as u32, OwnedFd::from_raw_fd(pidfd))),
        }
    }
}

/// Waits for the launcher's word; false once nobody can give it any more.
fn may_go(wait: i32, go: i32) -> bool {
    let mut byte = 0u8;
    kernel::call!(libc::SYS_close, go).is_ok()
        && kernel::call!(libc::SYS_read, wait, &raw mut byte, 1).is_ok_and(|read| read == 1)
}

fn become_edge(user: u32, listener: i32) -> kernel::Result<()> {
    let (mask, none) = (0u64, std::ptr::null_mut::<u64>());
    kernel::call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, none, 8)?;
    let kept = kernel::call!(libc::SYS_fcntl, listener, libc::F_DUPFD_CLOEXEC, 16)?;
    kernel::call!(libc::SYS_dup3, kept, LISTEN_FD, 0)?;
    kernel::call!(libc::SYS_close_range, LISTEN_FD + 1, u32::MAX, 0)?;
    kernel::call!(libc::SYS_setgroups, 0, std::ptr::null::<u32>())?;
    kernel::call!(libc::SYS_setresgid, user, user, user)?;
    kernel::call!(libc::SYS_setresuid, user, user, user)?;
    kernel::call!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).map(drop)
}

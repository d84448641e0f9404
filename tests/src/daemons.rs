//! Daemons from outside: who they are, `kill -9`, and a script in front of one that holds its next start back or has it happen under strace.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::installation::{Installation, eventually};

/// How long the script that keeps the daemons may take to start one again, plus the daemon's own start.
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// What stands in front of a daemon's program; its header says what it does.
const INTERPOSER: &str = include_str!("../faults/interpose.sh");

impl Installation {
    /// The edge's process; none while it is being started again.
    pub fn edge_process(&self) -> Option<i32> {
        let own = format!("{}/edge", self.data.display());
        fs::read_dir("/proc").into_iter().flatten().flatten().find_map(|entry| {
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let mut words = command.split(|b| *b == 0);
            let edge = words.next()?.ends_with(b"/berth-edge") && words.any(|word| word == own.as_bytes());
            edge.then(|| entry.file_name().to_str()?.parse().ok())?
        })
    }

    /// The process of any of the four: `agent`, `launcher`, `control`, `edge`; none while it is being started again.
    pub fn process(&self, daemon: &str) -> Option<i32> {
        if daemon == "edge" {
            return self.edge_process();
        }
        let pid = fs::read_to_string(self.data.join("run").join(format!("{daemon}.pid")))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        is_alive(pid).then_some(pid)
    }

    /// `kill -9`; whether there was one to be killed. Comes back when all of it is gone, its connections, too.
    pub fn kill(&self, daemon: &str) -> bool {
        let Some(pid) = self.process(daemon).and_then(Pid::from_raw) else { return false };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        let killed = pidfd_send_signal(&process, Signal::KILL).is_ok();
        // A descriptor of a process is readable once its last thread has ended.
        let ended = || {
            poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&Timespec::default())).is_ok_and(|n| n > 0)
        };
        killed && eventually(AGAIN_MAX, ended)
    }

    /// Waits until another process than `old` is there.
    pub fn comes_again(&self, daemon: &str, old: Option<i32>) -> bool {
        eventually(AGAIN_MAX, || self.process(daemon).is_some_and(|pid| Some(pid) != old))
    }

    /// The main processes of an app's instances, found from outside by their environment.
    pub fn processes_of(&self, app: &str) -> Vec<i32> {
        let (name, ours) = (format!("BERTH_APP={app}"), format!("berth-{}/", self.id));
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut found: Vec<i32> = entries
            .filter(|entry| {
                let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
                let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
                groups.contains(&ours)
                    && environment.split(|b| *b == 0).any(|variable| variable == name.as_bytes())
            })
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        found.sort_unstable();
        found
    }

    /// Puts the script in front of a daemon's program (`berth-agent`, `berth-launcher`), for its next starts.
    ///
    /// # Errors
    /// The disk's refusal.
    pub fn interpose(&self, program: &str) -> Result<(), String> {
        let (path, script) = (self.data.join("bin").join(program), self.data.join("bin/interpose.new"));
        let done = fs::rename(&path, path.with_extension("real"))
            .and_then(|()| fs::write(&script, INTERPOSER))
            .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
            .and_then(|()| fs::rename(&script, &path));
        done.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// A file that the script in front of a program looks for: `hold` while it exists, `fault` once.
    pub fn interposed(&self, program: &str, what: &str) -> PathBuf {
        self.data.join("run").join(format!("{program}.{what}"))
    }
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Where the descriptors of a process lead.
pub fn links(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        .collect()
}

//! The peers of a measurement: commands that `run.sh` prepared, each run once a round. What they are and how they are set up is
//! `run.sh`'s business.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde::Deserialize;

/// One peer.
#[derive(Debug, Deserialize)]
pub struct Peer {
    /// What the result calls it.
    pub key: String,
    /// Program and arguments; `@ROUND@` stands for the number of the round.
    command: Vec<String>,
    /// Removes what the command left, if it leaves something.
    #[serde(default)]
    destroy: Vec<String>,
    /// Lists what runs, one a line.
    #[serde(default)]
    list: Vec<String>,
    /// Kills the daemon and starts another; returns at once.
    #[serde(default)]
    restart: Vec<String>,
    /// It prints its own `p50_ms`, because its clock starts after the program itself did.
    #[serde(default)]
    own_clock: bool,
    /// Made anew for each round; `@ROUND@` as above.
    directory: Option<String>,
    /// A mount namespace to run it in.
    mounts: Option<PathBuf>,
    /// Where it keeps images and what containers write.
    data: Option<PathBuf>,
    /// The CPU time in nanoseconds of the daemon that does its work.
    daemon_cpu_ns: Option<PathBuf>,
}

/// What one thing cost in one round.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Milliseconds of wall clock.
    pub wall_ms: f64,
    /// Milliseconds of CPU.
    pub cpu_ms: f64,
}

impl Peer {
    /// Runs it once.
    ///
    /// # Errors
    /// It could not run, or did not end with 0: its last words.
    pub fn run(&self, round: usize, work: &Path) -> Result<Cost, String> {
        self.carry_out(&self.command, round, work)
    }

    /// Removes what a run left.
    ///
    /// # Errors
    /// As [`Peer::run`].
    pub fn destroy(&self, round: usize, work: &Path) -> Result<Cost, String> {
        self.carry_out(&self.destroy, round, work)
    }

    /// Where it keeps images and what containers write, if it does.
    pub fn data(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// Whether there is a daemon that can be restarted.
    pub fn has_daemon(&self) -> bool {
        !self.restart.is_empty()
    }

    /// Kills the daemon and starts another.
    ///
    /// # Errors
    /// The command could not run.
    pub fn restart_daemon(&self) -> io::Result<()> {
        let (program, arguments) = self.restart.split_first().ok_or(io::ErrorKind::NotFound)?;
        Command::new(program).args(arguments).status().map(drop)
    }

    /// How many it says run; none while it does not answer.
    pub fn running(&self) -> usize {
        let Some((program, arguments)) = self.list.split_first() else { return 0 };
        let output = Command::new(program).args(arguments).stderr(Stdio::null()).output();
        output.map_or(0, |output| output.stdout.iter().filter(|byte| **byte == b'\n').count())
    }

    fn carry_out(&self, command: &[String], round: usize, work: &Path) -> Result<Cost, String> {
        let words = work.join(format!("stderr-{round}"));
        let done = self.measure(command, round, &words).map_err(|error| {
            let said = std::fs::read_to_string(&words).unwrap_or_default();
            let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            format!("{error}: {}", said.chars().take(200).collect::<String>())
        });
        let _ = std::fs::remove_file(words);
        done
    }

    fn measure(&self, command: &[String], round: usize, words: &Path) -> io::Result<Cost> {
        let named = |text: &String| text.replace("@ROUND@", &round.to_string());
        if let Some(directory) = &self.directory {
            std::fs::create_dir_all(named(directory))?;
        }
        let mut arguments = command.iter().map(named);
        let mut command = Command::new(arguments.next().unwrap_or_default());
        let output = if self.own_clock { Stdio::piped() } else { Stdio::null() };
        command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(File::create(words)?);
        if let Some(mounts) = &self.mounts {
            let namespace = File::open(mounts)?;
            // SAFETY: between fork and exec only a system call, on a descriptor that lives as long as the command.
            unsafe {
                command.pre_exec(move || match libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                });
            }
        }
        let daemon = self.daemon_cpu_ms()?;
        let start = Instant::now();
        let mut child = command.spawn()?;
        let mut said = String::new();
        if let Some(mut output) = child.stdout.take() {
            output.read_to_string(&mut said)?;
        }
        let cpu_ms = reap(&child)?;
        let wall_ms = start.elapsed().as_secs_f64() * 1_000.0;
        let wall_ms = if self.own_clock { own_clock(&said)? } else { wall_ms };
        Ok(Cost { wall_ms, cpu_ms: cpu_ms + self.daemon_cpu_ms()? - daemon })
    }

    fn daemon_cpu_ms(&self) -> io::Result<f64> {
        let Some(path) = &self.daemon_cpu_ns else { return Ok(0.0) };
        let text = std::fs::read_to_string(path)?;
        text.trim().parse::<f64>().map(|ns| ns / 1e6).map_err(io::Error::other)
    }
}

fn own_clock(said: &str) -> io::Result<f64> {
    let figure = serde_json::from_str::<serde_json::Value>(said)?["p50_ms"].as_f64();
    figure.ok_or_else(|| io::Error::other("it did not print p50_ms"))
}

/// Waits for the command; says the CPU time of it and everything it waited for.
fn reap(child: &Child) -> io::Result<f64> {
    let mut status = 0;
    // SAFETY: rusage is plain data; the child is ours and waited for once.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::wait4(child.id() as libc::pid_t, &raw mut status, 0, &raw mut usage) < 0 {
            return Err(io::Error::last_os_error());
        }
        usage
    };
    if status != 0 {
        return Err(io::Error::other(format!("ended with wait status {status:#x}")));
    }
    Ok(cpu_ms(&usage))
}

/// The CPU time of this process so far, all its threads together.
pub fn own_cpu_ms() -> f64 {
    // SAFETY: rusage is plain data that the call fills in.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        cpu_ms(&usage)
    }
}

/// The CPU time of another process and of what it waited for, in clock ticks of 10 ms (proc_pid_stat(5)).
pub fn cpu_ms_of(pid: u32) -> io::Result<f64> {
    const TICK_MS: f64 = 10.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    Ok(fields.split_whitespace().skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        * TICK_MS)
}

fn cpu_ms(usage: &libc::rusage) -> f64 {
    let ms = |time: libc::timeval| time.tv_sec as f64 * 1_000.0 + time.tv_usec as f64 / 1_000.0;
    ms(usage.ru_utime) + ms(usage.ru_stime)
}

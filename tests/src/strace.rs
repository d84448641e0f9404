//! Faults from outside: strace(1) attached to a process that knows nothing of it, which kills it at a system call or has one fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::installation::eventually;

/// How long attaching may take on a busy machine.
const ATTACH_MAX: Duration = Duration::from_secs(20);

/// An attached strace.
pub struct Strace {
    child: Child,
    output: PathBuf,
}

impl Strace {
    /// Attaches to every thread of a process and, with `follow`, to the children that it makes from now on. `fault` is
    /// what happens at which of the `calls` (names with commas), as strace takes it after `-e`; none only watches.
    ///
    /// # Errors
    /// strace is missing, or the process ended meanwhile.
    pub fn attach(
        pid: i32,
        follow: bool,
        calls: &str,
        fault: Option<&str>,
        output: &Path,
    ) -> Result<Self, String> {
        let mut command = Command::new("strace");
        if follow {
            command.arg("-f");
        }
        let _ = fs::remove_file(output);
        for child in if follow { clones_of(pid) } else { Vec::new() } {
            command.args(["-p", &child.to_string()]);
        }
        let child = command
            .args(fault.into_iter().flat_map(|fault| ["-e", fault]))
            .args(["-qq", "-e", &format!("trace={calls}"), "-p", &pid.to_string(), "-o"])
            .arg(output)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("strace: {error}"))?;
        let strace = child.id().to_string();
        let this = Self { child, output: output.to_owned() };
        let attached = || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let mut tracers = tasks.filter_map(|task| tracer(&task.path()));
            if follow {
                tracers.all(|tracer| tracer == strace)
            } else {
                tracers.any(|tracer| tracer == strace)
            }
        };
        if eventually(ATTACH_MAX, attached) {
            Ok(this)
        } else {
            Err(format!("strace did not attach to {pid}"))
        }
    }

    /// Lets go; answers what it wrote.
    pub fn detach(mut self) -> String {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
        fs::read_to_string(&self.output).unwrap_or_default()
    }
}

/// Children that run the same program as their parent: a launcher's that wait for their order.
fn clones_of(pid: i32) -> Vec<i32> {
    let program = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = program(pid);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    children.filter(|child| own.is_some() && program(*child) == own).collect()
}

/// Ends the strace under which a process was started, if there is one.
pub fn end_tracer_of(pid: i32) {
    let tracer = tracer(Path::new(&format!("/proc/{pid}"))).and_then(|tracer| tracer.parse().ok());
    if let Some(tracer) = tracer.filter(|tracer| *tracer != 0).and_then(Pid::from_raw) {
        let _ = kill_process(tracer, Signal::TERM);
        eventually(ATTACH_MAX, || rustix::process::test_kill_process(tracer).is_err());
    }
}

fn tracer(process: &Path) -> Option<String> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim().to_owned())
}

/// How often a call was made, by the thread that made it most often: strace counts `when` a thread. A call that the kernel makes again by
/// itself (ERESTART…: a sysctl of the network waits like that for a lock) counts once.
pub fn most_by_thread(trace: &str, call: &str) -> u32 {
    let mut counts = std::collections::BTreeMap::new();
    for line in trace.lines().filter(|line| !line.contains("= ? ERESTART")) {
        // Without -f there is no number of a thread before the call.
        let (thread, made) = match line.split_once(' ') {
            Some((thread, rest)) if thread.bytes().all(|b| b.is_ascii_digit()) => (thread, rest.trim_start()),
            _ => ("", line),
        };
        if made.strip_prefix(call).is_some_and(|rest| rest.starts_with('(')) {
            *counts.entry(thread).or_insert(0) += 1;
        }
    }
    counts.into_values().max().unwrap_or(0)
}

/// How many faults a trace shows.
pub fn faults_in(trace: &str) -> usize {
    trace.lines().filter(|line| line.contains("(INJECTED)") || line.contains("+++ killed by SIGKILL")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "10 mkdir(\"/a\", 0777) = 0\n11 mkdir(\"/b\", 0777) = -1 ENOSPC (No space left) (INJECTED)\n\
        10 mkdirat(3, \"c\") = 0\n10 mkdir(\"/d\", 0777 <unfinished ...>\n10 +++ killed by SIGKILL +++\n";

    #[test]
    fn calls_must_be_counted_by_thread_and_faults_by_what_was_injected() {
        assert_eq!(most_by_thread(TRACE, "mkdir"), 2);
        assert_eq!(most_by_thread("mkdir(\"/a\") = 0\nmkdir(\"/b\") = ? ERESTARTNOINTR (…)\n", "mkdir"), 1);
        assert_eq!(most_by_thread(TRACE, "unlink"), 0);
        assert_eq!(faults_in(TRACE), 2);
    }
}

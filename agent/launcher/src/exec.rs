//! Further commands in running containers. Each is a child of the launcher in the container's pid namespace: the launcher reaps
//! it and tells how it ended; the container's own init reaps what the command leaves behind, and when that init ends, the
//! kernel ends the command, too.
//!
//! ```text
//! exec ──> Starting ── report pipe ends ──> Running ── pidfd ──> told, gone
//!             │ a step failed                  ^
//!             └──> Failing ── pidfd ──> gone   │ found after an upgrade in place
//! ```
//!
//! After an upgrade in place these are still children of the same process, so `execs.json` says which there are. After a kill
//! they are not: they live on, orphaned, and end with their containers.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_wire::id::ExecId;
use berth_wire::launch::{Event, Exec, LaunchFailure, Plan, Reply};
use berth_wire::report::Exit;
use serde::{Deserialize, Serialize};

use crate::children::{Asker, how_it_ended, open_process};
use crate::clone::{self, Outcome};
use crate::instance::process_facts;
use crate::memory_file;
use crate::prepare::{Descriptors, prepare};
use crate::requests::{descriptor, explain, failure};
use crate::server::Server;

/// Who it is, as kept in `execs.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    exec: ExecId,
    pid: u32,
    start_ticks: u64,
}

/// How far it is.
enum Life {
    Starting { report: File, steps: Vec<String>, asker: Asker },
    Failing { failure: LaunchFailure, asker: Asker },
    Running,
}

/// One command.
pub struct Running {
    known: Known,
    pidfd: OwnedFd,
    life: Life,
}

impl Running {
    /// What epoll watches of it: the process, and the report pipe while it is starting.
    pub fn watched(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        let report = match &self.life {
            Life::Starting { report, .. } => Some(report.as_fd()),
            _ => None,
        };
        (self.pidfd.as_fd(), report)
    }

    /// Whether its steps are being carried out.
    pub fn is_starting(&self) -> bool {
        !matches!(self.life, Life::Running)
    }
}

/// Commands that the launcher had before it was upgraded in place.
pub fn scan(record: &Path) -> Vec<Running> {
    let known: Vec<Known> =
        fs::read(record).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let ours =
        |known: &Known| process_facts(known.pid).is_some_and(|(_, parent)| parent == std::process::id());
    let adopt = |known: Known| {
        open_process(known.pid, known.start_ticks).map(|pidfd| Running { known, pidfd, life: Life::Running })
    };
    known.into_iter().filter(ours).filter_map(adopt).collect()
}

impl Server {
    pub(crate) fn start_exec(&mut self, asker: Asker, exec: &Exec, received: Vec<OwnedFd>) {
        match self.clone_exec(asker, exec, received) {
            Ok(running) => {
                self.next_exec += 1;
                let number = self.next_exec;
                self.execs.insert(number, running);
                self.save_execs();
                if let Err(error) = self.watch_exec(number) {
                    // Nobody would hear of its end.
                    self.execs.remove(&number);
                    self.reply(asker, Reply::Failed(failure("watch the command", &error)), &[]);
                }
            }
            Err(failure) => self.reply(asker, Reply::Failed(failure), &[]),
        }
    }

    fn clone_exec(
        &mut self,
        asker: Asker,
        exec: &Exec,
        mut received: Vec<OwnedFd>,
    ) -> Result<Running, LaunchFailure> {
        let gone = || failure("find the container", &io::Error::from_raw_os_error(libc::ESRCH));
        let entry = self.children.get_mut(exec.id).filter(|entry| entry.is_running()).ok_or_else(gone)?;
        let init = entry.process().ok_or_else(gone)?;
        let init = init.try_clone_to_owned().map_err(|error| failure("find the container", &error))?;
        let plan: Plan = descriptor(&received, exec.plan)
            .and_then(memory_file::read)
            .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
            .map_err(|error| failure("read the plan", &error))?;
        let cgroup = exec.cgroup.map(|index| descriptor(&received, index).and_then(|fd| fd.try_clone()));
        let cgroup = cgroup.transpose().map_err(|error| failure("find the cgroup", &error))?;
        received.push(init);
        let prepared = prepare(&plan, &Descriptors { received: &received, output: None, in_groups: false })
            .map_err(|error| {
            failure(&format!("prepare the plan: {error}"), &io::ErrorKind::InvalidInput.into())
        })?;
        let (init, own) = (received[received.len() - 1].as_fd(), self.pid_namespace.as_fd());
        let cloned = clone::clone_inside(&prepared, init, own, cgroup.as_ref().map(AsFd::as_fd))
            .map_err(|error| failure("start a process in the container", &error))?;
        let start_ticks = process_facts(cloned.pid).map_or(0, |(start, _)| start);
        let steps = plan.steps.iter().chain(&plan.main).map(|step| step.describe()).collect();
        Ok(Running {
            known: Known { exec: exec.exec, pid: cloned.pid, start_ticks },
            pidfd: cloned.pidfd,
            life: Life::Starting { report: cloned.report, steps, asker },
        })
    }

    /// The report pipe of a starting command became readable.
    pub(crate) fn exec_reported(&mut self, number: u64) {
        let Some(running) = self.execs.get_mut(&number) else { return };
        let Life::Starting { report, steps, asker } = &mut running.life else { return };
        let asker = *asker;
        match clone::outcome(report) {
            Outcome::Running => {
                running.life = Life::Running;
                let (pid, pidfd) = (running.known.pid, running.pidfd.try_clone());
                match pidfd {
                    Ok(pidfd) => self.reply(asker, Reply::Executed { pid }, &[pidfd.as_fd()]),
                    Err(error) => {
                        self.reply(asker, Reply::Failed(failure("pass on the process", &error)), &[])
                    }
                }
            }
            Outcome::Failed(what) => running.life = Life::Failing { failure: explain(what, steps), asker },
        }
    }

    pub(crate) fn exec_ended(&mut self, number: u64) {
        // A failure and the end of the process come together; the failure is read first.
        self.exec_reported(number);
        let Some(running) = self.execs.remove(&number) else { return };
        // The client has a duplicate of the pidfd: closing ours would not take it out of epoll.
        self.unwatch(running.pidfd.as_fd());
        self.save_execs();
        let exit = how_it_ended(&running.pidfd).unwrap_or(Exit::Unknown);
        match running.life {
            Life::Failing { failure, asker } => self.reply(asker, Reply::Failed(failure), &[]),
            _ => self.broadcast(Event::ExecEnded { exec: running.known.exec, exit }),
        }
    }

    /// Failing to is no reason to stop: only an upgrade in place would then not know them.
    fn save_execs(&self) {
        let known: Vec<Known> = self.execs.values().map(|running| running.known).collect();
        let new = self.execs_record.with_extension("json.new");
        if let Ok(bytes) = serde_json::to_vec(&known) {
            let _ = fs::write(&new, bytes).and_then(|()| fs::rename(&new, &self.execs_record));
        }
    }
}

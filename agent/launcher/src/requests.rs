//! What each request does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use berth_wire::id::InstanceId;
use berth_wire::launch::{
    Child, FdIndex, Launch, LaunchFailure, Namespaces, Plan, Reply, Request, RequestBody,
};

use crate::child::Failure;
use crate::children::{Asker, Entry, Life};
use crate::clone::{self, Cloned, Loan};
use crate::instance::{self, InstanceDir, Meta};
use crate::output::Drain;
use crate::parked::{self, Lent, NoClone, Wanted};
use crate::prepare::{Descriptors, prepare};
use crate::server::Server;
use crate::{memory_file, namespaces};

impl Server {
    pub(crate) fn handle(&mut self, connection: u64, request: Request, descriptors: Vec<OwnedFd>) {
        let asker = Asker { connection, number: request.number };
        match request.body {
            RequestBody::Namespaces(wanted) => self.make_namespaces(asker, wanted),
            RequestBody::Park => self.park(asker, &descriptors),
            RequestBody::Launch(launch) => {
                if let Err(failure) = self.launch(asker, &launch, &descriptors) {
                    self.reply(asker, Reply::Failed(failure), &[]);
                }
            }
            RequestBody::Exec(exec) => self.start_exec(asker, &exec, descriptors),
            RequestBody::Signal { id, signal } => {
                let sent = self.known(id).and_then(|entry| entry.signal(i32::from(signal)));
                self.answer(asker, "signal the main process", sent);
            }
            RequestBody::Kill { id } => {
                let killed = self.known(id).and_then(|entry| {
                    entry.killed = true;
                    entry.signal(libc::SIGKILL)
                });
                self.answer(asker, "kill the container", killed);
            }
            RequestBody::LogRate { id, lines_per_second } => {
                let set = self.known(id).and_then(|entry| entry.set_log_rate(lines_per_second));
                self.answer(asker, "change the log rate", set);
            }
            RequestBody::Forget { id } => {
                let forgotten = self.forget(id);
                self.answer(asker, "forget the container", forgotten);
            }
            RequestBody::List => self.list(asker),
            RequestBody::Status { id } => {
                let child = self.children.get_mut(id).map(|entry| entry.describe());
                self.reply(asker, Reply::Child { child }, &[]);
            }
            RequestBody::Upgrade => {
                self.upgrade();
                self.reply(asker, Reply::Done, &[]);
            }
        }
    }

    fn answer(&mut self, asker: Asker, action: &str, done: io::Result<()>) {
        let reply = match done {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(failure(action, &error)),
        };
        self.reply(asker, reply, &[]);
    }

    fn known(&mut self, id: InstanceId) -> io::Result<&mut Entry> {
        self.children.get_mut(id).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }

    fn make_namespaces(&mut self, asker: Asker, wanted: Namespaces) {
        match namespaces::make(wanted) {
            Ok([user, network]) => {
                self.reply(asker, Reply::Namespaces, &[user.as_fd(), network.as_fd()]);
            }
            Err(error) => self.answer(asker, "make a user and a network namespace", Err(error)),
        }
    }

    fn park(&mut self, asker: Asker, groups: &[OwnedFd]) {
        let lent = Lent { skeleton: self.skeleton.as_fd(), init: self.init.as_fd() };
        let parked = parked::park(groups, &lent).and_then(|[socket, process]| {
            self.watch_parked(process.try_clone()?)?;
            Ok([socket, process])
        });
        match parked {
            Ok([socket, process]) => self.reply(asker, Reply::Parked, &[socket.as_fd(), process.as_fd()]),
            Err(error) => self.answer(asker, "park a process", Err(error)),
        }
    }

    fn list(&mut self, asker: Asker) {
        let children: Vec<Child> = self.children.entries.values().map(Entry::describe).collect();
        let file = serde_json::to_vec(&children)
            .map_err(io::Error::from)
            .and_then(|bytes| memory_file::sealed(c"berth-children", &bytes));
        match file {
            Ok(file) => self.reply(asker, Reply::Children, &[file.as_fd()]),
            Err(error) => self.answer(asker, "list the containers", Err(error)),
        }
    }

    fn forget(&mut self, id: InstanceId) -> io::Result<()> {
        let Some(number) = self.children.number(id) else { return Ok(()) };
        let ended = |entry: &Entry| matches!(entry.life, Life::Exited(_));
        if !self.children.entries.get(&number).is_some_and(ended) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        match self.children.remove(number) {
            Some(entry) => entry.dir.remove(),
            None => Ok(()),
        }
    }

    fn launch(&mut self, asker: Asker, launch: &Launch, received: &[OwnedFd]) -> Result<(), LaunchFailure> {
        if self.children.number(launch.id).is_some() {
            return Err(failure("launch", &io::Error::from_raw_os_error(libc::EEXIST)));
        }
        let plan: Plan = descriptor(received, launch.plan)
            .and_then(memory_file::read)
            .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
            .map_err(|error| failure("read the plan", &error))?;
        let dir = InstanceDir::new(&self.instances, launch.id);
        let meta = Meta {
            id: launch.id,
            uid_base: launch.uid_base,
            pid: 0,
            start_ticks: 0,
            boot_id: instance::boot_id(),
            output: launch.output.clone(),
        };
        dir.create(&meta).map_err(|error| failure("make the instance's directory", &error))?;
        let started = self.start(asker, launch, received, &plan, (meta, &dir));
        started.inspect_err(|_| drop(dir.remove()))
    }

    fn start(
        &mut self,
        asker: Asker,
        launch: &Launch,
        received: &[OwnedFd],
        plan: &Plan,
        (mut meta, dir): (Meta, &InstanceDir),
    ) -> Result<(), LaunchFailure> {
        let io_failure = |error: io::Error| failure("open the output", &error);
        let (mut drain, mut writer) = (None, None);
        if let Some(output) = &launch.output {
            // The reader first: opening both ends at once would succeed as well, but the drain must never miss an end of file.
            drain = Some(Drain::new(dir.output_reader().map_err(io_failure)?, output, 0));
            writer = Some(dir.output_writer().map_err(io_failure)?);
        }
        let status = dir.status_writer().map_err(|error| failure("open the status file", &error))?;
        let cloned = self.clone_child(launch, received, plan, (status.as_fd(), writer.as_ref()))?;
        meta.pid = cloned.pid;
        meta.start_ticks = instance::process_facts(cloned.pid).map_or(0, |(start, _)| start);
        let saved = dir.write_meta(&meta).map_err(|error| failure("remember the container", &error));
        let steps = plan.steps.iter().chain(&plan.main).map(|step| step.describe()).collect();
        let life = match saved {
            Ok(()) => Life::Starting { report: cloned.report, steps, asker },
            // Nobody could find it again: it must not live. The answer waits until it is reaped.
            Err(failure) => Life::Failing { failure, asker },
        };
        let entry = Entry::new(meta, dir.clone(), cloned.pidfd, life, drain);
        if matches!(entry.life, Life::Failing { .. }) {
            let _ = entry.signal(libc::SIGKILL);
        }
        let number = self.children.insert(entry);
        self.watch_child(number).map_err(|error| {
            self.abandon(number);
            failure("watch the container", &error)
        })
    }

    /// By the process that is parked for it, if there is one.
    fn clone_child(
        &self,
        launch: &Launch,
        received: &[OwnedFd],
        plan: &Plan,
        (status, output): (BorrowedFd<'_>, Option<&OwnedFd>),
    ) -> Result<Cloned, LaunchFailure> {
        let mut received = received;
        if let Some(index) = launch.parked
            && let Some((parked, before)) = received.split_last()
            && usize::from(index.0) == before.len()
        {
            received = before;
            let output = output.map(AsFd::as_fd);
            let wanted = Wanted { plan: launch.plan, cgroup: launch.cgroup, received, status, output };
            match parked::order(parked, &wanted) {
                Ok(cloned) => return Ok(cloned),
                Err(NoClone::Failed(failure)) => return Err(failure),
                Err(NoClone::NotParked) => {}
            }
        }
        let output = output.map(AsRawFd::as_raw_fd);
        let prepared =
            prepare(plan, &Descriptors { received, output, in_groups: false }).map_err(|error| {
                failure(&format!("prepare the plan: {error}"), &io::ErrorKind::InvalidInput.into())
            })?;
        let cgroup = launch.cgroup.map(|index| descriptor(received, index)).transpose();
        let loan = Loan {
            skeleton: self.skeleton.as_fd(),
            init: self.init.as_fd(),
            status,
            cgroup: cgroup.map_err(|error| failure("find the cgroup", &error))?.map(AsFd::as_fd),
        };
        clone::clone(&prepared, &loan).map_err(|error| failure("clone into the cgroup", &error))
    }

    /// Ends a container that was just cloned and cannot be watched. Waits for its end, as nothing else would tell.
    fn abandon(&mut self, number: u64) {
        let Some(mut entry) = self.children.remove(number) else { return };
        let _ = entry.signal(libc::SIGKILL);
        entry.reap();
    }
}

pub(crate) fn descriptor(received: &[OwnedFd], index: FdIndex) -> io::Result<&OwnedFd> {
    received
        .get(usize::from(index.0))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a descriptor is missing"))
}

pub(crate) fn failure(step: &str, error: &io::Error) -> LaunchFailure {
    match error.raw_os_error() {
        Some(errno) => LaunchFailure { step: step.to_owned(), executing: false, errno },
        None => LaunchFailure { step: format!("{step}: {error}"), executing: false, errno: libc::EINVAL },
    }
}

/// Puts words to what the child wrote.
pub(crate) fn explain(failure: Failure, steps: &[String]) -> LaunchFailure {
    let index = failure.index as usize;
    let step = steps.get(index).cloned().unwrap_or_else(|| "start init".to_owned());
    LaunchFailure { step, executing: index + 1 == steps.len(), errno: failure.errno }
}

//! The loop: one epoll over connections, containers, the edge and signals. Nothing in here waits for anybody: requests that
//! take time are answered when their descriptor says so. What each request does is in `requests`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_wire::launch::{Event, Packet, Reply, SOCKET_NAME};
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::children::{self, Asker, Children, Entry, Life};
use crate::clone::{self, Outcome};
use crate::edge::Edge;
use crate::handover::Inherited;
use crate::output::{Scratch, Turn};
use crate::{exec, memory_file, skeleton, socket};

/// The containers' init, compiled by build.rs.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// What a descriptor is, in the upper byte of epoll's data; the lower bytes are the number of its owner.
const KIND_LISTENER: u64 = 1 << 56;
const KIND_SIGNALS: u64 = 2 << 56;
const KIND_CONNECTION: u64 = 3 << 56;
const KIND_PROCESS: u64 = 4 << 56;
const KIND_REPORT: u64 = 5 << 56;
const KIND_OUTPUT: u64 = 6 << 56;
const KIND_EDGE: u64 = 7 << 56;
const KIND_EXEC: u64 = 8 << 56;
const KIND_EXEC_REPORT: u64 = 9 << 56;
const KIND_PARKED: u64 = 10 << 56;
const KIND_MASK: u64 = 0xff << 56;

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SIGTERM or SIGINT: the edge was stopped, containers live on.
    Stop,
    /// SIGHUP or an upgrade request: execute the program again.
    Upgrade,
}

/// The launcher.
pub struct Server {
    pub(crate) instances: PathBuf,
    pub(crate) skeleton: OwnedFd,
    pub(crate) init: OwnedFd,
    pub(crate) children: Children,
    pub(crate) execs: BTreeMap<u64, exec::Running>,
    pub(crate) next_exec: u64,
    pub(crate) execs_record: PathBuf,
    /// The launcher's own, to come back to.
    pub(crate) pid_namespace: OwnedFd,
    pub(crate) end: Option<End>,
    pub(crate) epoll: OwnedFd,
    pub(crate) listener: OwnedFd,
    signals: OwnedFd,
    pub(crate) connections: BTreeMap<u64, OwnedFd>,
    next_connection: u64,
    pub(crate) edge: Option<Edge>,
    scratch: Scratch,
    /// Parked processes, to be reaped.
    parked: BTreeMap<u64, OwnedFd>,
    next_parked: u64,
    /// Containers with more output than one turn took.
    unfinished: Vec<u64>,
}

impl Server {
    /// Opens everything and takes over what an earlier launcher left in `dir`, or kept open while it became this one.
    ///
    /// # Errors
    /// What was refused.
    pub fn open(dir: &Path, edge: Option<Edge>, inherited: Option<Inherited>) -> io::Result<Self> {
        let instances = children::instances_dir(dir)?;
        let (listener, connected) = match inherited {
            Some(inherited) => (inherited.listener, inherited.connections),
            None => (socket::listen_at(&dir.join(SOCKET_NAME))?, Vec::new()),
        };
        let mut server = Self {
            skeleton: skeleton::make(dir)?,
            init: memory_file::executable(c"berth-init", INIT)?,
            children: Children::default(),
            execs: BTreeMap::new(),
            next_exec: 0,
            execs_record: dir.join("execs.json"),
            pid_namespace: std::fs::File::open("/proc/self/ns/pid")?.into(),
            end: None,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            listener,
            signals: signals()?,
            connections: BTreeMap::new(),
            next_connection: 0,
            edge,
            scratch: Scratch::new()?,
            parked: BTreeMap::new(),
            next_parked: 0,
            unfinished: Vec::new(),
            instances,
        };
        for entry in children::scan(&server.instances)? {
            server.adopt(entry)?;
        }
        for running in exec::scan(&server.execs_record) {
            server.next_exec += 1;
            server.execs.insert(server.next_exec, running);
            server.watch_exec(server.next_exec)?;
        }
        server.watch(server.signals.as_fd(), KIND_SIGNALS, EventFlags::IN)?;
        for connection in connected {
            server.connections.insert(server.next_connection, connection);
            server.next_connection += 1;
        }
        server.hear()?;
        Ok(server)
    }

    /// Takes connections and requests.
    pub(crate) fn hear(&self) -> io::Result<()> {
        self.watch(self.listener.as_fd(), KIND_LISTENER, EventFlags::IN)?;
        let mut connections = self.connections.iter();
        connections
            .try_for_each(|(number, fd)| self.watch(fd.as_fd(), KIND_CONNECTION | number, EventFlags::IN))
    }

    fn adopt(&mut self, entry: Entry) -> io::Result<()> {
        let gone = entry.pidfd.is_none() && !matches!(entry.life, Life::Exited(_));
        let number = self.children.insert(entry);
        if gone {
            self.process_ended(number);
            return Ok(());
        }
        self.watch_child(number)
    }

    pub(crate) fn watch_child(&mut self, number: u64) -> io::Result<()> {
        let Some(entry) = self.children.entries.get(&number) else { return Ok(()) };
        if let Some(process) = entry.process() {
            self.watch(process, KIND_PROCESS | number, EventFlags::IN)?;
        }
        if let Life::Starting { report, .. } = &entry.life {
            self.watch(report.as_fd(), KIND_REPORT | number, EventFlags::IN)?;
        }
        if let Some(drain) = &entry.drain {
            // Edge-triggered: an unfinished line stays in the FIFO and must not wake us again and again.
            self.watch(drain.fifo.as_fd(), KIND_OUTPUT | number, EventFlags::IN | EventFlags::ET)?;
        }
        Ok(())
    }

    pub(crate) fn watch_exec(&self, number: u64) -> io::Result<()> {
        let Some(running) = self.execs.get(&number) else { return Ok(()) };
        let (process, report) = running.watched();
        self.watch(process, KIND_EXEC | number, EventFlags::IN)?;
        report.map_or(Ok(()), |report| self.watch(report, KIND_EXEC_REPORT | number, EventFlags::IN))
    }

    fn watch(&self, fd: BorrowedFd<'_>, data: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(data), flags)?)
    }

    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        // Not watched is what was wanted.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Serves until told to end.
    ///
    /// # Errors
    /// epoll itself failing.
    pub fn serve(&mut self) -> io::Result<End> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        loop {
            self.supervise_edge();
            if let Some(end) = self.end.filter(|end| *end == End::Stop || !self.starting()) {
                self.end_parked();
                return Ok(end);
            }
            let timeout = self.timeout().map(|wait| rustix::event::Timespec {
                tv_sec: wait.as_secs() as i64,
                tv_nsec: i64::from(wait.subsec_nanos()),
            });
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                other => drop(other?),
            }
            for event in &events {
                self.dispatch(event.data.u64());
            }
            for number in std::mem::take(&mut self.unfinished) {
                self.drain(number);
            }
        }
    }

    fn starting(&self) -> bool {
        let busy = |entry: &Entry| matches!(entry.life, Life::Starting { .. } | Life::Failing { .. });
        self.children.entries.values().any(busy) || self.execs.values().any(exec::Running::is_starting)
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        self.edge.as_ref().and_then(|edge| edge.retry_in(Instant::now()))
    }

    fn dispatch(&mut self, data: u64) {
        let number = data & !KIND_MASK;
        match data & KIND_MASK {
            // What waits when an upgrade begins is for the next program.
            KIND_LISTENER | KIND_CONNECTION if self.end.is_some() => {}
            KIND_LISTENER => self.accept(),
            KIND_SIGNALS => self.signal(),
            KIND_CONNECTION => self.receive(number),
            KIND_PROCESS => self.process_ended(number),
            KIND_REPORT => self.reported(number),
            KIND_OUTPUT => self.drain(number),
            KIND_EXEC => self.exec_ended(number),
            KIND_EXEC_REPORT => self.exec_reported(number),
            KIND_EDGE => {
                if let Some(edge) = &mut self.edge {
                    edge.ended(Instant::now());
                }
            }
            KIND_PARKED => drop(self.parked.remove(&number).map(|process| reap(&process))),
            _ => {}
        }
    }

    pub(crate) fn watch_parked(&mut self, process: OwnedFd) -> io::Result<()> {
        self.next_parked += 1;
        self.watch(process.as_fd(), KIND_PARKED | self.next_parked, EventFlags::IN)?;
        self.parked.insert(self.next_parked, process);
        Ok(())
    }

    /// Ends the parked processes: the program that replaces this one would not know that they are to be reaped.
    fn end_parked(&mut self) {
        for process in std::mem::take(&mut self.parked).into_values() {
            let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
            reap(&process);
        }
    }

    fn supervise_edge(&mut self) {
        let Some(edge) = &mut self.edge else { return };
        if let Some(process) = edge.start_if_due(Instant::now()) {
            let _ = epoll::add(&self.epoll, process, EventData::new_u64(KIND_EDGE), EventFlags::IN);
        }
    }

    fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        let Ok(connection) = rustix::net::accept_with(&self.listener, flags) else { return };
        // The socket is root's alone already; this also holds for whoever inherited a descriptor of it.
        let root = rustix::net::sockopt::socket_peercred(&connection).is_ok_and(|peer| peer.uid.is_root());
        if !root {
            return;
        }
        let data = KIND_CONNECTION | self.next_connection;
        if self.watch(connection.as_fd(), data, EventFlags::IN).is_ok() {
            self.connections.insert(self.next_connection, connection);
            self.next_connection += 1;
        }
    }

    fn receive(&mut self, number: u64) {
        let Some(connection) = self.connections.get(&number) else { return };
        match socket::receive(connection) {
            Ok(Some(received)) => match received.value {
                Some(request) => self.handle(number, request, received.descriptors),
                None => drop(self.connections.remove(&number)),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => drop(self.connections.remove(&number)),
        }
    }

    pub(crate) fn reply(&mut self, asker: Asker, reply: Reply, descriptors: &[BorrowedFd<'_>]) {
        let packet = Packet::Reply { number: asker.number, reply };
        self.send(asker.connection, &packet, descriptors);
    }

    /// Whoever does not read is cut off: it connects again and asks what it missed.
    fn send(&mut self, connection: u64, packet: &Packet, descriptors: &[BorrowedFd<'_>]) {
        let Some(socket) = self.connections.get(&connection) else { return };
        if socket::send(socket, packet, descriptors).is_err() {
            self.connections.remove(&connection);
        }
    }

    pub(crate) fn broadcast(&mut self, event: Event) {
        let packet = Packet::Event { event };
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.send(connection, &packet, &[]);
        }
    }

    /// The report pipe of a starting container became readable.
    fn reported(&mut self, number: u64) {
        let Some(entry) = self.children.entries.get_mut(&number) else { return };
        let Life::Starting { report, steps, asker } = &mut entry.life else { return };
        let asker = *asker;
        match clone::outcome(report) {
            Outcome::Running => {
                let pid = entry.meta.pid;
                entry.life = Life::Running;
                self.reply(asker, Reply::Launched { pid }, &[]);
            }
            // The answer waits until the process is gone: whoever gets it may remove the cgroup at once.
            Outcome::Failed(failure) => {
                let failure = crate::requests::explain(failure, steps);
                entry.life = Life::Failing { failure, asker };
            }
        }
    }

    fn process_ended(&mut self, number: u64) {
        // A failure and the end of the process come together; the failure is read first.
        self.reported(number);
        let Some(entry) = self.children.entries.get_mut(&number) else { return };
        let exit = entry.finish(&mut self.scratch);
        if let Life::Failing { failure, asker } = &entry.life {
            let (failure, asker) = (failure.clone(), *asker);
            if let Some(entry) = self.children.remove(number) {
                let _ = entry.dir.remove();
            }
            self.reply(asker, Reply::Failed(failure), &[]);
            return;
        }
        entry.life = Life::Exited(exit);
        let id = entry.meta.id;
        self.broadcast(Event::Exited { id, exit });
    }

    fn drain(&mut self, number: u64) {
        let Some(entry) = self.children.entries.get_mut(&number) else { return };
        if entry.drain_turn(&mut self.scratch) == Turn::More {
            self.unfinished.push(number);
        }
    }

    fn signal(&mut self) {
        let mut info = [0u8; std::mem::size_of::<libc::signalfd_siginfo>()];
        if rustix::io::read(&self.signals, &mut info).is_err() {
            return;
        }
        // ssi_signo is the first field.
        let signal = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        if signal == libc::SIGHUP {
            self.upgrade();
        } else {
            self.end = Some(End::Stop);
            if let Some(edge) = &mut self.edge {
                edge.stop();
            }
        }
    }
}

/// Waits for a child that ended, or is about to.
fn reap(process: &OwnedFd) {
    let id = rustix::process::WaitId::PidFd(process.as_fd());
    let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
}

/// SIGTERM, SIGINT and SIGHUP as a descriptor.
fn signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset; the descriptor is ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

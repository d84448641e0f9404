//! The client: requests and their answers, events to whoever listens, and reconnecting. A request that was under way when the connection
//! broke fails as disconnected; whether it was carried out is told by `list`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_wire::id::InstanceId;
use berth_wire::launch::{
    Child, ChildState, Event, Exec, Launch, LaunchFailure, Namespaces, Packet, Reply, Request, RequestBody,
    SOCKET_NAME,
};
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;

use super::connection::Connection;
use super::outputs::Outputs;
use super::parcel::Parcel;
use super::parked::Parked;

/// Pause between attempts to reconnect: a launcher is back within milliseconds or its supervisor's back-off.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long a request waits for a connection before it fails.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Events kept for a slow listener: one per container that ends; on a lag it asks with `list`.
const EVENTS_MAX: usize = 4_096;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher is not there.
    #[error("launcher at {path}: {reason}; is berth-launcher running?")]
    Disconnected {
        /// Its socket.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The launcher could not do it.
    #[error(transparent)]
    Refused(#[from] LaunchFailure),
    /// Something of it could not be made or read here.
    #[error("{action}: {source}")]
    Local {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The answer makes no sense for the request: launcher and agent are of different versions.
    #[error(
        "the launcher answered something else than was asked; restart it so that both are of one version"
    )]
    Confused,
}

/// The namespaces a container will own.
#[derive(Debug)]
pub struct NamespacePair {
    /// Its user namespace.
    pub user: OwnedFd,
    /// Its network namespace, owned by the former.
    pub network: OwnedFd,
}

type Answer = (Reply, Vec<OwnedFd>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    connection: tokio::sync::watch::Sender<Option<Arc<Connection>>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    numbers: AtomicU64,
    events: broadcast::Sender<Event>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        // Every change is one call: a panic elsewhere cannot leave it half-changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disconnected(&self, reason: impl Into<io::Error>) -> LaunchError {
        LaunchError::Disconnected { path: self.path.clone(), reason: reason.into() }
    }
}

/// A connection to the launcher that reconnects by itself.
#[derive(Debug)]
pub struct Launcher {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    outputs: Outputs,
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn runs(child: &Child) -> bool {
    !matches!(child.state, ChildState::Exited(_))
}

impl Launcher {
    /// Connects to the launcher whose directory this is.
    ///
    /// # Errors
    /// No launcher there.
    pub async fn connect(dir: &Path) -> Result<Self, LaunchError> {
        let path = dir.join(SOCKET_NAME);
        let connection = Connection::open(&path)
            .map_err(|reason| LaunchError::Disconnected { path: path.clone(), reason })?;
        let shared = Arc::new(Shared {
            path,
            connection: tokio::sync::watch::Sender::new(Some(Arc::new(connection))),
            waiting: Mutex::default(),
            numbers: AtomicU64::new(1),
            events: broadcast::Sender::new(EVENTS_MAX),
        });
        let reader = tokio::spawn(read(Arc::clone(&shared)));
        Ok(Self { shared, reader, outputs: Outputs::new(dir) })
    }

    /// Makes the namespaces of one container.
    ///
    /// # Errors
    /// The launcher is not reachable, or the kernel refused.
    pub async fn namespaces(&self, wanted: Namespaces) -> Result<NamespacePair, LaunchError> {
        let (reply, descriptors) = self.ask(RequestBody::Namespaces(wanted), &[]).await?;
        match (reply, <[OwnedFd; 2]>::try_from(descriptors)) {
            (Reply::Namespaces, Ok([user, network])) => Ok(NamespacePair { user, network }),
            _ => Err(LaunchError::Confused),
        }
    }

    /// Parks a process in v1 cgroups, given by their `cgroup.procs`, for one launch.
    ///
    /// # Errors
    /// The launcher is not reachable, or the kernel refused.
    pub async fn park(&self, groups: &[OwnedFd]) -> Result<Parked, LaunchError> {
        let groups: Vec<_> = groups.iter().map(AsFd::as_fd).collect();
        let (reply, descriptors) = self.ask(RequestBody::Park, &groups).await?;
        match (reply, <[OwnedFd; 2]>::try_from(descriptors)) {
            (Reply::Parked, Ok([socket, process])) => Ok(Parked { socket, process }),
            _ => Err(LaunchError::Confused),
        }
    }

    /// Starts a container; says the host's pid of its init.
    ///
    /// # Errors
    /// The launcher is not reachable, or a step failed.
    pub async fn launch(&self, launch: Launch, parcel: &Parcel) -> Result<u32, LaunchError> {
        let (id, body) = (launch.id, RequestBody::Launch(Box::new(launch)));
        match self.ask(body, &parcel.descriptors()).await? {
            (Reply::Launched { pid }, _) => {
                // Of an earlier run of the same instance another may be held.
                self.outputs.release(id);
                self.outputs.hold(id);
                Ok(pid)
            }
            _ => Err(LaunchError::Confused),
        }
    }

    /// Starts a further command in a running container; answers with its pidfd.
    ///
    /// # Errors
    /// The launcher is not reachable, the container does not run (ESRCH), or a step failed.
    pub async fn exec(&self, exec: Exec, parcel: &Parcel) -> Result<OwnedFd, LaunchError> {
        let body = RequestBody::Exec(Box::new(exec));
        match self.ask(body, &parcel.descriptors()).await? {
            (Reply::Executed { .. }, mut descriptors) => descriptors.pop().ok_or(LaunchError::Confused),
            _ => Err(LaunchError::Confused),
        }
    }

    /// Sends a signal to a container's main process.
    ///
    /// # Errors
    /// The launcher is not reachable, or the container ended (ESRCH).
    pub async fn signal(&self, id: InstanceId, signal: u8) -> Result<(), LaunchError> {
        self.order(RequestBody::Signal { id, signal }).await
    }

    /// Kills all of a container.
    ///
    /// # Errors
    /// The launcher is not reachable, or the container ended (ESRCH).
    pub async fn kill(&self, id: InstanceId) -> Result<(), LaunchError> {
        self.order(RequestBody::Kill { id }).await
    }

    /// Changes how many lines a second a container may log.
    ///
    /// # Errors
    /// The launcher is not reachable, or does not know the container (ESRCH).
    pub async fn set_log_rate(&self, id: InstanceId, lines_per_second: u32) -> Result<(), LaunchError> {
        self.order(RequestBody::LogRate { id, lines_per_second }).await
    }

    /// Forgets a container that ended; idempotent.
    ///
    /// # Errors
    /// The launcher is not reachable, or the container runs (EBUSY).
    pub async fn forget(&self, id: InstanceId) -> Result<(), LaunchError> {
        let forgotten = self.order(RequestBody::Forget { id }).await;
        if forgotten.is_ok() {
            self.outputs.release(id);
        }
        forgotten
    }

    /// Has the launcher replace itself by the newest program on disk.
    ///
    /// # Errors
    /// The launcher is not reachable.
    pub async fn upgrade(&self) -> Result<(), LaunchError> {
        self.order(RequestBody::Upgrade).await
    }

    /// One container, if the launcher knows it.
    ///
    /// # Errors
    /// The launcher is not reachable.
    pub async fn status(&self, id: InstanceId) -> Result<Option<Child>, LaunchError> {
        match self.ask(RequestBody::Status { id }, &[]).await? {
            (Reply::Child { child }, _) => {
                if child.as_ref().is_some_and(runs) {
                    self.outputs.hold(id);
                }
                Ok(child)
            }
            _ => Err(LaunchError::Confused),
        }
    }

    /// Every container it knows.
    ///
    /// # Errors
    /// The launcher is not reachable.
    pub async fn list(&self) -> Result<Vec<Child>, LaunchError> {
        let before = self.outputs.ids();
        let (reply, mut descriptors) = self.ask(RequestBody::List, &[]).await?;
        let (Reply::Children, Some(file)) = (reply, descriptors.pop()) else {
            return Err(LaunchError::Confused);
        };
        let local = |source| LaunchError::Local { action: "read the launcher's list", source };
        let mut text = Vec::new();
        // 1,000 containers of about 200 bytes; 64 MiB is far beyond any host.
        File::from(file).take(64 << 20).read_to_end(&mut text).map_err(local)?;
        let children: Vec<Child> = serde_json::from_slice(&text).map_err(|error| local(error.into()))?;
        let running = children.iter().filter(|child| runs(child)).map(|child| child.id).collect();
        self.outputs.hold_running(&running, &before);
        Ok(children)
    }

    /// What happens from now on. After a lag, ask with [`Launcher::list`]. Once the connection was lost, what ended
    /// meanwhile is told again.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    async fn order(&self, body: RequestBody) -> Result<(), LaunchError> {
        match self.ask(body, &[]).await? {
            (Reply::Done, _) => Ok(()),
            _ => Err(LaunchError::Confused),
        }
    }

    async fn ask(&self, body: RequestBody, descriptors: &[BorrowedFd<'_>]) -> Result<Answer, LaunchError> {
        let connection = self.connected().await?;
        ask(&self.shared, &connection, body, descriptors).await
    }

    async fn connected(&self) -> Result<Arc<Connection>, LaunchError> {
        let mut watch = self.shared.connection.subscribe();
        let found = tokio::time::timeout(CONNECT_WAIT_MAX, watch.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(connection)) => {
                connection.clone().ok_or_else(|| self.shared.disconnected(io::ErrorKind::NotConnected))
            }
            _ => Err(self.shared.disconnected(io::ErrorKind::NotConnected)),
        }
    }
}

async fn ask(
    shared: &Shared,
    connection: &Connection,
    body: RequestBody,
    descriptors: &[BorrowedFd<'_>],
) -> Result<Answer, LaunchError> {
    let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
    let (sender, answer) = oneshot::channel();
    shared.waiting().insert(number, sender);
    if let Err(reason) = connection.send(&Request { number, body }, descriptors).await {
        shared.waiting().remove(&number);
        return Err(shared.disconnected(reason));
    }
    match answer.await {
        Ok((Reply::Failed(failure), _)) => Err(failure.into()),
        Ok(answer) => Ok(answer),
        // The reader dropped it: the connection broke.
        Err(_) => Err(shared.disconnected(io::ErrorKind::ConnectionReset)),
    }
}

/// Hands out what comes in; connects again, for ever, when the connection breaks.
async fn read(shared: Arc<Shared>) {
    loop {
        let connection = shared.connection.borrow().clone();
        if let Some(connection) = connection {
            while let Ok((packet, descriptors)) = connection.receive().await {
                hand_out(&shared, packet, descriptors);
            }
            shared.connection.send_replace(None);
            shared.waiting().clear();
        }
        match Connection::open(&shared.path) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                shared.connection.send_replace(Some(Arc::clone(&connection)));
                tokio::spawn(tell_again(Arc::clone(&shared), connection));
            }
            Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
        }
    }
}

fn hand_out(shared: &Shared, packet: Packet, descriptors: Vec<OwnedFd>) {
    match packet {
        Packet::Reply { number, reply } => {
            if let Some(sender) = shared.waiting().remove(&number) {
                // Whoever asked may have gone; then the descriptors close here.
                let _ = sender.send((reply, descriptors));
            }
        }
        // No listener is no error.
        Packet::Event { event } => drop(shared.events.send(event)),
    }
}

/// After a reconnect: what ended while nobody listened.
async fn tell_again(shared: Arc<Shared>, connection: Arc<Connection>) {
    let Ok((Reply::Children, mut descriptors)) = ask(&shared, &connection, RequestBody::List, &[]).await
    else {
        return;
    };
    let Some(file) = descriptors.pop() else { return };
    let mut text = Vec::new();
    if File::from(file).take(64 << 20).read_to_end(&mut text).is_err() {
        return;
    }
    for child in serde_json::from_slice::<Vec<Child>>(&text).unwrap_or_default() {
        if let ChildState::Exited(exit) = child.state {
            let _ = shared.events.send(Event::Exited { id: child.id, exit });
        }
    }
}

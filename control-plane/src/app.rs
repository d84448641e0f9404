//! What every handler and task shares. Parts are opened once at start and cloned cheaply; nothing here decides anything.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use berth_wire::id::{HostId, InstanceId};
use berth_wire::report::InstanceSample;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::blobs::{BlobError, Blobs};
use crate::build_logs::BuildLogs;
use crate::config::Config;
use crate::git::Git;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::sessions::Sessions;
use crate::store::{Store, StoreError};

/// The running control plane.
#[derive(Clone)]
pub struct App {
    /// What it was told at start.
    pub config: Arc<Config>,
    /// Its state.
    pub store: Store,
    /// What time it is.
    pub clock: Clock,
    /// Who is to look again.
    pub wakes: Wakes,
    /// The newest sample of each instance.
    pub samples: Samples,
    /// Content by digest.
    pub blobs: Blobs,
    /// Images.
    pub registry: Registry,
    /// What builds print.
    pub build_logs: BuildLogs,
    /// Streams that agents are asked for.
    pub sessions: Sessions,
    /// What it counts about itself.
    pub metrics: Metrics,
    /// Repositories and pushes.
    pub git: Git,
}

/// Why it could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The metrics' names.
    #[error("the metrics could not be set up: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A folder.
    #[error("cannot use {path}: {source}; check that the data directory belongs to this user")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl App {
    /// Opens the store in the data directory and everything that stands on it.
    ///
    /// # Errors
    /// A part could not be opened.
    pub async fn open(config: Config, clock: Clock) -> Result<Self, OpenError> {
        let store = Store::open(&config.data, clock.now()).await?;
        let blobs = Blobs::open(&config.data.join("blobs"))?;
        let builds = config.data.join("builds");
        let build_logs =
            BuildLogs::open(&builds).map_err(|source| OpenError::Folder { path: builds, source })?;
        let repositories = config.data.join("git");
        let git = Git::open(&repositories, config.push_bytes_max)
            .map_err(|source| OpenError::Folder { path: repositories, source })?;
        Ok(Self {
            config: Arc::new(config),
            store,
            clock,
            wakes: Wakes::default(),
            samples: Samples::default(),
            registry: Registry::new(&blobs),
            blobs,
            build_logs,
            sessions: Sessions::default(),
            metrics: Metrics::new()?,
            git,
        })
    }
}

/// The clock, as an argument: tests turn their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's.
    pub fn system() -> Self {
        Self(Arc::new(Timestamp::now))
    }

    /// One that a function tells.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

/// Wake-ups. They carry no input: whoever wakes reads the store, as it also does by timer.
#[derive(Clone)]
pub struct Wakes {
    plan: watch::Sender<u64>,
    changed: watch::Sender<u64>,
}

impl Default for Wakes {
    fn default() -> Self {
        Self { plan: watch::Sender::new(0), changed: watch::Sender::new(0) }
    }
}

impl Wakes {
    /// Something the planner looks at changed: desired state, or a report.
    pub fn plan(&self) {
        self.plan.send_modify(|n| *n += 1);
    }

    /// Wakes whenever [`Self::plan`] was called. Only for the planner's loop.
    pub fn planner(&self) -> watch::Receiver<u64> {
        self.plan.subscribe()
    }

    /// Something somebody may wait for changed: a spec, a release, a build, build output.
    pub fn changed(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Wakes whenever [`Self::changed`] was called. Subscribe *before* reading what you wait for.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// The newest sample of each instance. In memory only: it is out of date after ten seconds anyway.
/// Bounded by what hosts report: a host's samples are replaced as a whole.
#[derive(Clone, Default)]
pub struct Samples(Arc<Mutex<HashMap<HostId, Vec<InstanceSample>>>>);

impl Samples {
    /// What a host reported.
    pub fn put(&self, host: HostId, samples: Vec<InstanceSample>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host, samples);
    }

    /// An instance's newest sample.
    pub fn get(&self, host: HostId, instance: InstanceId) -> Option<InstanceSample> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&host)?.iter().find(|s| s.instance == Some(instance)).cloned()
    }
}

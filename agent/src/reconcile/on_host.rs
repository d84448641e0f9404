//! The real machine behind the reconciler's seam: images, containers, builds, checks and logs of this host; and the real edge.
//! It carries out and translates; it decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::edge::Backend;
use berth_wire::id::InstanceId;
use berth_wire::image::ImageRef;
use berth_wire::name::Domain;
use berth_wire::quota::Quota;
use berth_wire::report::{Built, Exit, LOG_TAIL_LINES_MAX, Trouble};
use berth_wire::spec::{InstanceSpec, ProcessSpec, Spec, Work};
use tokio::sync::{Semaphore, watch};

use super::machine::{AsyncTell, Edge, Found, Launched, Machine, NotSet, Target};
use super::plan::{EdgeView, Why};
use super::record::{Health, label, process_of};
use crate::attach::attachments::Attachments;
use crate::build::Builder;
use crate::container::{Capabilities, ContainerSpec, Host, Output, QuotaError};
use crate::health::{diagnose, probe, sockets, watch as health_watch};
use crate::image::{Image, Registry, configuration};
use crate::logs::name::{LogName, app_dir, path_of};
use crate::logs::{FILE_BYTES_MAX, history};
use crate::routes::{Routes, RoutesStatus};

mod attached;

/// Images that are fetched at a time: the registry and the disk are shared, and one that is slow must not hold up the others.
const FETCHES_AT_ONCE: usize = 8;

/// Containers that are made at a time: each is some milliseconds of kernel work, and more only queue for its locks.
const LAUNCHES_AT_ONCE: usize = 8;

/// How long the start of the agent waits for the leases of the images that run: they are on the disk already.
const LEASES_WAIT_MAX: Duration = Duration::from_secs(10);

/// This host.
pub struct OnHost {
    /// What containers are made of.
    pub host: Arc<Host>,
    /// Where images come from.
    pub registry: Registry,
    /// Where logs go.
    pub logs: PathBuf,
    /// Runs builds.
    pub builder: Builder,
    /// One-offs that somebody is attached to.
    pub attachments: Attachments,
    specs: watch::Receiver<Option<Arc<Spec>>>,
    // Layers stay while a clone of their image lives.
    leases: Mutex<BTreeMap<InstanceId, Image>>,
    fetches: Semaphore,
    launches: Semaphore,
}

impl OnHost {
    /// Puts the parts together. `specs` tells at start which images the adopted containers hold.
    pub fn new(
        host: Arc<Host>,
        registry: Registry,
        logs: PathBuf,
        builder: Builder,
        specs: watch::Receiver<Option<Arc<Spec>>>,
    ) -> Self {
        Self {
            host,
            registry,
            logs,
            builder,
            attachments: Attachments::default(),
            specs,
            leases: Mutex::default(),
            fetches: Semaphore::new(FETCHES_AT_ONCE),
            launches: Semaphore::new(LAUNCHES_AT_ONCE),
        }
    }

    async fn fetch(&self, id: InstanceId, image: &ImageRef) -> Result<Image, Trouble> {
        let _permit = self.fetches.acquire().await;
        let fetched = self.host.images.ensure(image, &self.registry).await.map_err(|error| {
            let message = format!("Could not get the image {}@{}: {error}", image.repository, image.digest);
            trouble(Code::R20, message)
        })?;
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).insert(id, fetched.clone());
        Ok(fetched)
    }

    /// Takes the leases of what runs already, so that no layer is collected under it.
    async fn lease(&self, found: &BTreeSet<InstanceId>) {
        let spec = self.specs.borrow().clone();
        let running = spec.iter().flat_map(|s| &s.instances).filter(|i| found.contains(&i.id));
        let fetches = running.filter_map(|i| Some((i.id, &process_of(&i.work)?.image))).map(|(id, image)| async move {
            if let Err(trouble) = self.fetch(id, image).await {
                tracing::warn!(instance = %id, trouble.message, "could not take the lease of a running container's image");
            }
        });
        if tokio::time::timeout(LEASES_WAIT_MAX, futures_util::future::join_all(fetches)).await.is_err() {
            tracing::warn!("taking the leases of running containers' images took too long; going on");
        }
    }

    /// The instance's log, in a directory that is made if it is missing.
    fn log_of(&self, spec: &InstanceSpec) -> Result<Output, Trouble> {
        let directory = app_dir(&self.logs, spec.app);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|error| {
            let message = format!("Could not make the log directory {}: {error}", directory.display());
            trouble(Code::R20, message)
        })?;
        Ok(Output::File {
            path: path_of(&self.logs, spec),
            bytes_max: FILE_BYTES_MAX,
            lines_per_second: u32::try_from(spec.quota.log_lines_per_second.max).unwrap_or(u32::MAX),
        })
    }

    fn container(
        &self,
        spec: &InstanceSpec,
        process: &ProcessSpec,
        image: &Image,
        output: Output,
    ) -> Result<ContainerSpec, Trouble> {
        let refused = |message| trouble(Code::R20, message);
        let mut env = configuration::env(&image.config);
        env.extend(process.env.clone());
        Ok(ContainerSpec {
            id: spec.id,
            hostname: hostname(spec),
            layers: image.layers.clone(),
            argv: process.argv.clone(),
            env,
            cwd: configuration::cwd(&image.config),
            user: configuration::user(&image.config).map_err(refused)?,
            quota: spec.quota,
            binds: Vec::new(),
            output,
            capabilities: Capabilities::App,
            network: true,
        })
    }
}

impl Machine for OnHost {
    async fn adopt(&self) -> Result<Vec<Found>, String> {
        let adopted = self.host.adopt().await.map_err(|e| e.to_string())?;
        let mut found: Vec<Found> = adopted
            .into_iter()
            .map(|a| Found {
                id: a.id,
                process: Some(Launched { address: a.endpoint.map(|e| e.address), pid: a.pid }),
                exit: a.exit,
            })
            .collect();
        let whole: BTreeSet<InstanceId> = found.iter().map(|f| f.id).collect();
        let mut parts: BTreeSet<InstanceId> = self.host.network.list().into_iter().collect();
        parts.extend(self.host.cgroups.list().map_err(|e| e.to_string())?);
        parts.extend(self.host.disk.list().map_err(|e| e.to_string())?);
        let parts = parts.difference(&whole).map(|&id| Found { id, process: None, exit: None });
        found.extend(parts);
        self.hang_up_orphans(&found);
        self.lease(&whole).await;
        self.host.begin_making_ahead();
        Ok(found)
    }

    async fn start(&self, spec: Arc<InstanceSpec>) -> Result<Launched, Trouble> {
        let process = process_of(&spec.work)
            .ok_or_else(|| trouble(Code::R20, "It is a build, not a process".to_owned()))?;
        let started = match process.attached {
            Some(attached) => self.start_attached(&spec, process, attached).await,
            None => self.launch(&spec, process, self.log_of(&spec)?).await,
        };
        let started = started.map_err(|error| trouble(error.code, error.message))?;
        Ok(Launched { address: started.endpoint.map(|e| e.address), pid: started.pid })
    }

    async fn build(&self, spec: Arc<InstanceSpec>) -> Result<Built, Trouble> {
        match &spec.work {
            Work::Build(build) => self.builder.run(&spec, build).await,
            _ => Err(trouble(Code::B18, "It is a process, not a build".to_owned())),
        }
    }

    async fn set_quota(&self, id: InstanceId, quota: Quota) -> Result<(), NotSet> {
        self.host.set_quota(id, quota).await.map_err(|error| match error {
            QuotaError::Never(reason) => NotSet::Never(reason),
            QuotaError::Failed(reason) => NotSet::Yet(reason),
        })
    }

    async fn wait(&self, id: InstanceId) -> Exit {
        let exit = self.host.wait(id).await;
        let struck = self.host.cgroups.get(id).ok().flatten().and_then(|group| group.oom_kills().ok());
        let exit =
            if struck.is_some_and(|n| n > 0) && exit != Exit::Code(0) { Exit::OutOfMemory } else { exit };
        self.attachments.ended(id, exit);
        exit
    }

    async fn stop(&self, id: InstanceId, grace: Duration) -> Result<Exit, String> {
        self.host.stop(id, grace).await.map_err(|e| e.to_string())
    }

    async fn verdict(&self, target: Target, why: Why) -> Trouble {
        verdict(target, why).await
    }

    async fn remove(&self, id: InstanceId, release_address: bool) -> Result<(), String> {
        self.host.destroy(id, release_address).await.map_err(|e| e.to_string())?;
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.attachments.forget(id);
        Ok(())
    }

    async fn check(&self, target: Target, from: Health, tell: impl AsyncTell) -> Infallible {
        let Some((process, address)) = checked(&target) else { return std::future::pending().await };
        health_watch::watch(address, &process.health, &label(&target.spec), from, tell).await
    }

    fn log_tail(&self, spec: Arc<InstanceSpec>) -> impl Future<Output = Vec<String>> + Send {
        let directory = app_dir(&self.logs, spec.app);
        let read = move || history::tail(&directory, &LogName::of(&spec), LOG_TAIL_LINES_MAX);
        async { tokio::task::spawn_blocking(read).await.unwrap_or_default() }
    }
}

fn trouble(code: Code, message: String) -> Trouble {
    Trouble { code, message, log_tail: Vec::new() }
}

fn checked(target: &Target) -> Option<(&ProcessSpec, SocketAddr)> {
    let process = process_of(&target.spec.work)?;
    Some((process, SocketAddr::from((target.address, process.port?))))
}

async fn verdict(target: Target, why: Why) -> Trouble {
    if why == Why::RanTooLong {
        let seconds = process_of(&target.spec.work).map_or(0, |p| p.run_seconds_max);
        let name = label(&target.spec);
        return trouble(Code::R23, format!("{name} ran longer than the {seconds} s it may and was killed"));
    }
    let Some((process, address)) = checked(&target) else {
        return trouble(Code::R10, "It did not come up in time".to_owned());
    };
    let last = probe::probe(address, &process.health).await.err();
    let read = target.pid.map(|pid| tokio::task::spawn_blocking(move || sockets::listeners(pid)));
    let listeners = match read {
        Some(read) => read.await.ok().and_then(Result::ok).unwrap_or_default(),
        None => BTreeSet::new(),
    };
    let seconds = process.health.boot_timeout_seconds;
    let (code, message) = diagnose::diagnose(&listeners, address.port(), seconds, last.as_ref());
    trouble(code, message)
}

/// `shop-web-1`: a DNS label of at most 63 characters (RFC 1035 2.3.4).
fn hostname(spec: &InstanceSpec) -> String {
    let name = format!("{}-{}-{}", spec.app_name, spec.process, spec.index).replace('_', "-");
    name.chars().take(63).collect::<String>().trim_end_matches('-').to_owned()
}

/// The real edge behind the reconciler's seam.
pub struct OnEdge {
    routes: Routes,
    status: watch::Receiver<RoutesStatus>,
}

impl OnEdge {
    /// Over a connection that keeps itself.
    pub fn new(routes: Routes) -> Self {
        let status = routes.status();
        Self { routes, status }
    }
}

impl EdgeView for OnEdge {
    fn is_free_of(&self, id: InstanceId) -> bool {
        self.routes.is_quiet(id)
    }

    fn may_stop(&self, id: InstanceId) -> bool {
        self.routes.may_stop(id)
    }
}

impl Edge for OnEdge {
    fn publish(&self, domains: BTreeMap<Domain, Backend>) -> Result<(), String> {
        self.routes.publish(domains).map(drop).map_err(|e| e.to_string())
    }

    async fn changed(&mut self) {
        if self.status.changed().await.is_err() {
            // The connection's task ended with its last handle; we hold one, so this does not happen.
            std::future::pending::<()>().await;
        }
    }
}

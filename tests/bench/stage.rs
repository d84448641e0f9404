//! What every measurement of our own side needs: a host with its own launcher and installation, and its parts kept ready as in the agent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use berth_agent::container::{Capabilities, ContainerSpec, Host, Output, READY_MAX};
use berth_agent::installation::DEFAULT_ID;
use berth_tests::host;
use berth_wire::id::InstanceId;
use berth_wire::quota::{MIB, Quota};
use tokio::task::JoinHandle;

use crate::Failure;

/// A small installation has 1,021 addresses and 383 ranges of ids: what needs more than this takes the production blocks, if they are free.
const SMALL_MAX: usize = 350;
/// Metadata of a small container and of the pool itself; the space is preallocated.
const POOL_BYTES: u64 = 2_048 * MIB;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Places {
    /// A root file system with static `true` and `pause`.
    pub root: PathBuf,
    /// berth-launcher.
    pub launcher: PathBuf,
    /// For working files.
    pub work: PathBuf,
}

/// The host. Close it, whatever happened.
pub struct Stage {
    /// The host.
    pub host: Arc<Host>,
    launcher: Option<Child>,
    filler: JoinHandle<std::convert::Infallible>,
    places: Places,
}

/// Which installation has room for so many containers.
pub fn installation_for(containers: usize) -> String {
    let default_is_free = !Path::new("/run/berth").join(DEFAULT_ID).exists();
    if containers > SMALL_MAX && default_is_free {
        DEFAULT_ID.to_owned()
    } else {
        format!("bench-{}", std::process::id())
    }
}

/// Opens a host of an installation whose launcher runs.
pub async fn open_host(places: &Places, id: &str) -> Result<Host, Failure> {
    host::open(id, &places.work, POOL_BYTES, std::env::current_exe()?).await
}

/// Starts a launcher.
pub fn start_launcher(places: &Places) -> Result<Child, Failure> {
    Ok(Command::new(&places.launcher).arg("--dir").arg(places.work.join("launcher")).spawn()?)
}

impl Stage {
    /// Starts a launcher and opens a host for so many containers, with everything ready.
    pub async fn open(places: &Places, containers: usize) -> Result<Self, Failure> {
        let launcher = start_launcher(places)?;
        let host = Arc::new(open_host(places, &installation_for(containers)).await?);
        host.adopt().await?;
        let stage = Self::of(host, Some(launcher), places);
        stage.host.ready.wait_for(READY_MAX).await;
        Ok(stage)
    }

    /// Around a host that has adopted what there was.
    pub fn of(host: Arc<Host>, launcher: Option<Child>, places: &Places) -> Self {
        let filler = tokio::spawn(host.clone().keep_ready(READY_MAX));
        host.begin_making_ahead();
        Self { host, launcher, filler, places: places.clone() }
    }

    /// The root file system that all of them have.
    pub fn root(&self) -> &Path {
        &self.places.root
    }

    /// A container with the default quota that runs this program of the root.
    pub fn spec(&self, program: &str) -> ContainerSpec {
        ContainerSpec {
            id: InstanceId(uuid::Uuid::now_v7()),
            hostname: "bench".into(),
            layers: vec![self.places.root.clone()],
            argv: vec![program.to_owned()],
            env: BTreeMap::new(),
            cwd: "/".into(),
            user: (1_000, 1_000),
            quota: Quota::default(),
            binds: vec![],
            output: Output::File {
                path: self.places.work.join("log"),
                bytes_max: 1 << 20,
                lines_per_second: 1_000,
            },
            capabilities: Capabilities::App,
            network: true,
        }
    }

    /// Starts so many idle containers, one after the other.
    pub async fn start_idle(&self, count: usize) -> Result<Vec<InstanceId>, Failure> {
        self.start_each(count, || self.spec("/bin/pause")).await
    }

    /// Starts so many containers, one after the other.
    pub async fn start_each(
        &self,
        count: usize,
        spec: impl Fn() -> ContainerSpec,
    ) -> Result<Vec<InstanceId>, Failure> {
        let mut ids = Vec::new();
        for number in 1..=count {
            let spec = spec();
            ids.push(spec.id);
            self.host.start(spec).await?;
            if number % 50 == 0 {
                eprintln!("{number} of {count} run");
            }
        }
        Ok(ids)
    }

    /// Removes containers, whatever state they are in.
    pub async fn destroy(&self, ids: Vec<InstanceId>) -> Result<(), Failure> {
        for id in ids {
            self.host.destroy(id, true).await?;
        }
        self.host.network.settle().await;
        Ok(())
    }

    /// CPU milliseconds of our side so far: this process, and the launcher with what it reaped.
    pub fn cpu_ms(&self) -> Result<f64, Failure> {
        let launcher = self.launcher.as_ref().map(|launcher| crate::peers::cpu_ms_of(launcher.id()));
        Ok(crate::peers::own_cpu_ms() + launcher.transpose()?.unwrap_or_default())
    }

    /// Takes it all down; tries every part.
    pub async fn close(mut self) -> Result<(), Failure> {
        self.filler.abort();
        let _ = self.filler.await;
        self.host.discard_ready().await;
        let _ = self.host.adopt().await;
        let closed = host::close(&self.host).await;
        if let Some(mut launcher) = self.launcher.take() {
            launcher.kill()?;
            launcher.wait()?;
        }
        closed?;
        Ok(self.host.installation.release()?)
    }
}

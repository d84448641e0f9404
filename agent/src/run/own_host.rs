//! The installation that a run is: opened part by part, and every part that was opened closed again, however far it came.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use super::{RunError, step};
use crate::cgroup::{Cgroups, IoDevice};
use crate::container::{Host, Ready};
use crate::disk::Disk;
use crate::disk::shares::Shares;
use crate::image::{Images, ImagesConfig};
use crate::installation::Installation;
use crate::launch::{LaunchError, Launcher, UidRanges, load_security_policy};
use crate::network::{Network, NetworkConfig};

/// A host of our own. Close it, whatever happened.
pub(super) struct OwnHost {
    pub host: Host,
    launcher: OwnLauncher,
}

/// A launcher of our own; it ends with us.
struct OwnLauncher(Child);

impl Drop for OwnLauncher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What has been opened so far.
#[derive(Default)]
struct Parts {
    cgroups: Option<Cgroups>,
    network: Option<Network>,
    disk: Option<Disk>,
}

/// Opens it. After an error nothing of it is left.
pub(super) async fn open(name: &str, work: &Path, pool_bytes: u64) -> Result<OwnHost, RunError> {
    let installation = Installation::new(name).map_err(step("claim an installation"))?;
    let mut parts = Parts::default();
    match parts.open(&installation, work, pool_bytes).await {
        Ok((images, launcher, client)) => {
            if let Parts { cgroups: Some(cgroups), network: Some(network), disk: Some(disk) } = parts {
                let (uids, ready) = (UidRanges::new(installation.uid_block()), Ready::default());
                let host =
                    Host { installation, cgroups, network, disk, images, launcher: client, uids, ready };
                return Ok(OwnHost { host, launcher });
            }
            // `Parts::open` leaves none out.
            Err(step("open the host")("a part of it is missing"))
        }
        Err(error) => {
            parts.close().await;
            release(installation);
            Err(error)
        }
    }
}

impl OwnHost {
    /// Gives back everything; what cannot be is said, and the rest tried.
    pub(super) async fn close(self) {
        let Host { installation, cgroups, network, disk, .. } = self.host;
        Parts { cgroups: Some(cgroups), network: Some(network), disk: Some(disk) }.close().await;
        drop(self.launcher);
        release(installation);
    }
}

impl Parts {
    async fn open(
        &mut self,
        installation: &Installation,
        work: &Path,
        pool_bytes: u64,
    ) -> Result<(Images, OwnLauncher, Launcher), RunError> {
        let launcher_dir = work.join("launcher");
        let launcher = start_launcher(&launcher_dir).map_err(step("start the launcher"))?;
        let cgroups = self.cgroups.insert(Cgroups::open(installation).map_err(step("open the cgroups"))?);
        let network = Network::open(installation, NetworkConfig::default()).await;
        self.network = Some(network.map_err(step("open the network"))?);
        let disk = Disk::open(installation, work, Shares::undivided(pool_bytes)).await;
        let disk = self.disk.insert(disk.map_err(step("open the disk"))?);
        let (major, minor) = disk.device().map_err(step("find the disk's device"))?;
        cgroups.throttle(IoDevice { major, minor });
        let config = ImagesConfig {
            layers_dir: disk.layers_dir(),
            unpacker: std::env::current_exe().map_err(step("find this program"))?,
            bytes_max: u64::MAX,
        };
        let images = Images::open(installation, config).await.map_err(step("open the image store"))?;
        let client = connect(&launcher_dir).await.map_err(step("reach the launcher"))?;
        load_security_policy().map_err(step("load the security policy"))?;
        Ok((images, launcher, client))
    }

    async fn close(self) {
        let mut problems = Vec::new();
        if let Some(network) = self.network {
            problems.extend(network.close_down().await.err().map(|error| error.to_string()));
        }
        problems.extend(
            self.cgroups.and_then(|cgroups| cgroups.close_down().err()).map(|error| error.to_string()),
        );
        if let Some(disk) = self.disk {
            problems.extend(disk.close().await.err().map(|error| error.to_string()));
        }
        for problem in problems {
            eprintln!("berth-agent: clean up: {problem}");
        }
    }
}

fn release(installation: Installation) {
    if let Err(error) = installation.release() {
        eprintln!("berth-agent: clean up: {error}");
    }
}

fn start_launcher(dir: &Path) -> io::Result<OwnLauncher> {
    let beside = std::env::current_exe()?.with_file_name("berth-launcher");
    let program = if beside.exists() { beside } else { PathBuf::from("berth-launcher") };
    // A process group of its own: what a terminal or timeout(1) sends to the whole group is for the command, not for the launcher.
    Command::new(&program).arg("--dir").arg(dir).process_group(0).spawn().map(OwnLauncher).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}; install it beside berth-agent", program.display()))
    })
}

/// The launcher was just started: its socket appears within milliseconds.
async fn connect(dir: &Path) -> Result<Launcher, LaunchError> {
    const ATTEMPTS: u32 = 200;
    let mut attempt = 0;
    loop {
        match Launcher::connect(dir).await {
            Err(_) if attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            other => return other,
        }
    }
}

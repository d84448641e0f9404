//! A host without an agent around it, on which tests and benches start containers directly. Its launcher is the caller's to start, before,
//! and to end.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_agent::cgroup::Cgroups;
use berth_agent::container::{Host, Ready};
use berth_agent::disk::Disk;
use berth_agent::disk::shares::Shares;
use berth_agent::image::{Images, ImagesConfig};
use berth_agent::installation::Installation;
use berth_agent::launch::{Launcher, UidRanges, load_security_policy};
use berth_agent::network::{Network, NetworkConfig};

/// What keeps one from being opened or closed.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Opens the host of this installation, with the pool and the launcher's directory in `dir`.
///
/// # Errors
/// What could not be made, or no launcher.
pub async fn open(name: &str, dir: &Path, pool_bytes: u64, unpacker: PathBuf) -> Result<Host, Failure> {
    let installation = Installation::new(name)?;
    let disk = Disk::open(&installation, dir, Shares::undivided(pool_bytes)).await?;
    let config = ImagesConfig { layers_dir: disk.layers_dir(), unpacker, bytes_max: u64::MAX };
    load_security_policy()?;
    Ok(Host {
        cgroups: Cgroups::open(&installation)?,
        network: Network::open(&installation, NetworkConfig::default()).await?,
        images: Images::open(&installation, config).await?,
        launcher: connect(&dir.join("launcher")).await?,
        uids: UidRanges::new(installation.uid_block()),
        ready: Ready::default(),
        disk,
        installation,
    })
}

/// Takes down everything that is shared by its containers; tries every part. The installation is to be released once the launcher ended.
///
/// # Errors
/// The first part that is left.
pub async fn close(host: &Host) -> Result<(), Failure> {
    let closed = [
        host.network.close_down().await.map_err(Failure::from),
        host.cgroups.close_down().map_err(Failure::from),
        host.disk.close().await.map_err(Failure::from),
    ];
    closed.into_iter().collect()
}

/// The launcher was just started: its socket appears within milliseconds.
async fn connect(dir: &Path) -> Result<Launcher, Failure> {
    let mut attempts = 0;
    loop {
        match Launcher::connect(dir).await {
            Err(_) if attempts < 500 => tokio::time::sleep(Duration::from_millis(10)).await,
            connected => return Ok(connected?),
        }
        attempts += 1;
    }
}

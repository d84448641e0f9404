//! What the attempts happen on: a host of their own (installation id, launcher, pool), images of one static program, and the one
//! way to run it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use berth_agent::cgroup::Cgroups;
use berth_agent::container::{Capabilities, ContainerSpec, Host, Output, Ready, StartError};
use berth_agent::disk::Disk;
use berth_agent::image::{Images, ImagesConfig};
use berth_agent::installation::Installation;
use berth_agent::launch::{Launcher, UidRanges};
use berth_agent::network::{Network, NetworkConfig};
use berth_tests::installation::binaries;
use berth_wire::id::InstanceId;
use berth_wire::launch::Plan;
use berth_wire::quota::{Bounds, MIB, Quota};
use berth_wire::report::Exit;

/// A host of its own.
pub struct Stage {
    pub host: Host,
    pub dir: tempfile::TempDir,
    launcher: Child,
}

/// One run of the probe.
pub struct Attempt<'a> {
    pub name: &'a str,
    pub image: &'a str,
    pub user: u32,
    pub cwd: String,
    pub network: bool,
    pub env: BTreeMap<String, String>,
    pub capabilities: Capabilities,
}

impl<'a> Attempt<'a> {
    pub fn new(name: &'a str, user: u32) -> Self {
        Self {
            name,
            image: "plain",
            user,
            cwd: "/".into(),
            network: false,
            env: BTreeMap::new(),
            capabilities: Capabilities::App,
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Stage {
    /// Makes it all.
    pub async fn open() -> Result<Self, String> {
        let name = format!("t-iso-{}", std::process::id());
        let dir = tempfile::Builder::new().prefix("berth-isolation-").tempdir_in("/var/tmp").map_err(text)?;
        make_images(dir.path())?;
        let program = binaries().join("berth-launcher");
        let launcher = start_launcher(&program, dir.path())?;
        let installation = Installation::new(&name).map_err(text)?;
        let disk = Disk::open(&installation, dir.path(), 512 * MIB).await.map_err(text)?;
        let config = ImagesConfig {
            layers_dir: disk.layers_dir(),
            unpacker: binaries().join("berth-agent"),
            bytes_max: u64::MAX,
        };
        let host = Host {
            cgroups: Cgroups::open(&installation).map_err(text)?,
            network: Network::open(&installation, NetworkConfig::default()).await.map_err(text)?,
            images: Images::open(&installation, config).await.map_err(text)?,
            launcher: connect(&dir.path().join("launcher")).await?,
            uids: UidRanges::new(installation.uid_block()),
            ready: Ready::default(),
            disk,
            installation,
        };
        Ok(Self { host, dir, launcher })
    }

    /// Kills the launcher and starts another.
    pub fn replace_launcher(&mut self) -> Result<(), String> {
        self.launcher.kill().map_err(text)?;
        self.launcher.wait().map_err(text)?;
        self.launcher = start_launcher(&binaries().join("berth-launcher"), self.dir.path())?;
        Ok(())
    }

    /// Takes it all down again.
    pub async fn close(mut self) -> Result<(), String> {
        self.host.network.close_down().await.map_err(text)?;
        self.host.cgroups.close_down().map_err(text)?;
        self.host.disk.close().await.map_err(text)?;
        self.launcher.kill().map_err(text)?;
        self.launcher.wait().map_err(text)?;
        self.host.installation.release().map_err(text)
    }

    /// What a container that makes this attempt is.
    pub fn spec(&self, attempt: &Attempt<'_>) -> ContainerSpec {
        ContainerSpec {
            id: InstanceId(uuid::Uuid::now_v7()),
            hostname: "inside".into(),
            layers: vec![self.dir.path().join("images").join(attempt.image)],
            argv: vec!["/bin/probe".into(), attempt.name.into()],
            env: attempt.env.clone(),
            cwd: attempt.cwd.clone(),
            user: (attempt.user, attempt.user),
            quota: Quota {
                pids: Bounds::new(4, 20),
                memory_bytes: Bounds::new(16 * MIB, 64 * MIB),
                disk_bytes: Bounds::new(MIB, 16 * MIB),
                ..Quota::default()
            },
            binds: vec![],
            output: Output::File {
                path: self.dir.path().join("log"),
                bytes_max: 1 << 20,
                lines_per_second: 10_000,
            },
            capabilities: attempt.capabilities,
            network: attempt.network,
        }
    }

    /// Makes the attempt in a container whose plan was adjusted; says how it exited.
    pub async fn attempt(
        &self,
        attempt: &Attempt<'_>,
        adjust: impl FnOnce(Plan) -> Plan + Send,
    ) -> Result<Exit, StartError> {
        let spec = self.spec(attempt);
        let id = spec.id;
        self.host.start_with(spec, adjust).await?;
        let exit = self.host.wait(id).await;
        if let Err(error) = self.host.destroy(id, true).await {
            panic!("{error}");
        }
        Ok(exit)
    }
}

fn start_launcher(program: &Path, dir: &Path) -> Result<Child, String> {
    Command::new(program)
        .arg("--dir")
        .arg(dir.join("launcher"))
        .spawn()
        .map_err(|error| format!("{}: {error}; run cargo build --workspace first", program.display()))
}

async fn connect(dir: &Path) -> Result<Launcher, String> {
    let mut attempts = 0;
    loop {
        match Launcher::connect(dir).await {
            Ok(launcher) => return Ok(launcher),
            Err(error) if attempts == 500 => return Err(error.to_string()),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        attempts += 1;
    }
}

/// Images of one program: a plain one, and hostile ones.
fn make_images(dir: &Path) -> Result<(), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolation/probe.rs");
    let probe = dir.join("probe");
    let compiled = Command::new("rustc")
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "panic=abort", "-o"])
        .arg(&probe)
        .arg(&source)
        .status()
        .map_err(|error| format!("rustc: {error}"))?;
    if !compiled.success() {
        return Err("the probe does not compile".into());
    }
    for name in ["plain", "proc-link", "sys-link", "dev-link", "null-link"] {
        make_image(&dir.join("images").join(name), name, &probe).map_err(text)?;
    }
    Ok(())
}

fn make_image(root: &Path, name: &str, probe: &Path) -> std::io::Result<()> {
    for directory in ["bin", "canary"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy(probe, root.join("bin/probe"))?;
    fs::write(root.join("bin/other"), "as it was")?;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("node"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )?;
    rustix::fs::chmod(root.join("node"), rustix::fs::Mode::from_raw_mode(0o666))?;
    match name.strip_suffix("-link") {
        Some("null") => {
            fs::create_dir(root.join("dev"))?;
            std::os::unix::fs::symlink("/canary", root.join("dev/null"))
        }
        Some(target) => std::os::unix::fs::symlink("/canary", root.join(target)),
        None => Ok(()),
    }
}

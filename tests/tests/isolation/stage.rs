//! What the attempts happen on: a host of their own (installation id, launcher, pool), and the one way to run the probe.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use berth_agent::container::{Bind, Capabilities, ContainerSpec, Host, Output, StartError};
use berth_tests::host;
use berth_tests::installation::binaries;
use berth_wire::id::InstanceId;
use berth_wire::launch::Plan;
use berth_wire::quota::{Bounds, MIB, Quota};
use berth_wire::report::Exit;

use crate::images;

/// A host of its own.
pub struct Stage {
    pub host: Host,
    pub dir: tempfile::TempDir,
    launcher: Child,
}

/// One run of the probe.
pub struct Attempt<'a> {
    pub name: &'a str,
    /// What the probe is told beside the attempt's name.
    pub arguments: Vec<String>,
    /// Another command than the probe.
    pub command: Option<Vec<String>>,
    pub image: &'a str,
    pub user: u32,
    pub cwd: String,
    pub network: bool,
    pub env: BTreeMap<String, String>,
    pub capabilities: Capabilities,
    pub quota: Quota,
    pub binds: Vec<Bind>,
}

impl<'a> Attempt<'a> {
    pub fn new(name: &'a str, user: u32) -> Self {
        Self {
            name,
            arguments: vec![],
            command: None,
            image: "plain",
            user,
            cwd: "/".into(),
            network: false,
            env: BTreeMap::new(),
            capabilities: Capabilities::App,
            quota: Quota {
                pids: Bounds::new(4, 20),
                memory_bytes: Bounds::new(16 * MIB, 64 * MIB),
                disk_bytes: Bounds::new(MIB, 16 * MIB),
                ..Quota::default()
            },
            binds: vec![],
        }
    }

    /// The same, told this as well.
    pub fn with<T: ToString>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments = arguments.into_iter().map(|argument| argument.to_string()).collect();
        self
    }

    /// What is executed.
    pub fn argv(&self) -> Vec<String> {
        let probe = || {
            let words = ["/bin/probe", self.name].map(str::to_owned);
            words.into_iter().chain(self.arguments.iter().cloned()).collect()
        };
        self.command.clone().unwrap_or_else(probe)
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
        // A copy: one attempt is to overwrite it.
        let program = dir.path().join("berth-launcher");
        fs::copy(binaries().join("berth-launcher"), &program)
            .map_err(|error| format!("berth-launcher: {error}; run cargo build --workspace first"))?;
        images::make(dir.path())?;
        let launcher = start_launcher(dir.path())?;
        let unpacker = binaries().join("berth-agent");
        let host = host::open(&name, dir.path(), 512 * MIB, unpacker).await.map_err(text)?;
        Ok(Self { host, dir, launcher })
    }

    /// Kills the launcher and starts another.
    pub fn replace_launcher(&mut self) -> Result<(), String> {
        self.launcher.kill().map_err(text)?;
        self.launcher.wait().map_err(text)?;
        self.launcher = start_launcher(self.dir.path())?;
        Ok(())
    }

    /// Takes it all down again.
    pub async fn close(mut self) -> Result<(), String> {
        let closed = host::close(&self.host).await.map_err(text);
        self.launcher.kill().and_then(|()| self.launcher.wait()).map_err(text)?;
        closed?;
        self.host.installation.release().map_err(text)
    }

    /// What a container that makes this attempt is.
    pub fn spec(&self, attempt: &Attempt<'_>) -> ContainerSpec {
        ContainerSpec {
            id: InstanceId(uuid::Uuid::now_v7()),
            hostname: "inside".into(),
            layers: vec![self.dir.path().join("images").join(attempt.image)],
            argv: attempt.argv(),
            env: attempt.env.clone(),
            cwd: attempt.cwd.clone(),
            user: (attempt.user, attempt.user),
            quota: attempt.quota,
            binds: attempt.binds.clone(),
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

/// With some capabilities inheritable and ambient, which a launcher never has, so that it shows whether they get into a container.
const CAPABILITIES: &str = "+chown,+kill,+net_raw,+sys_chroot";

fn start_launcher(dir: &Path) -> Result<Child, String> {
    Command::new("setpriv")
        .args(["--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES, "--"])
        .arg(dir.join("berth-launcher"))
        .arg("--dir")
        .arg(dir.join("launcher"))
        .spawn()
        .map_err(|error| format!("setpriv berth-launcher: {error}"))
}

//! What the corpus runs on: a host of its own, one image in it, and one way to run a command to its end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;

use berth_agent::container::{Bind, Capabilities, ContainerSpec, Host, Output};
use berth_agent::image::Layer;
use berth_tests::host;
use berth_tests::installation::{binaries, root};
use berth_wire::id::InstanceId;
use berth_wire::quota::{Bounds, MIB, Quota};
use berth_wire::report::Exit;

/// The largest image is 1.2 GiB on disk; as much again for what the programs write, and for btrfs itself.
const POOL_BYTES: u64 = 4_096 * MIB;
/// Above what any of them takes on a slow machine that others use, too: apt, which unpacks 150 packages.
const RUN_MAX: Duration = Duration::from_secs(300);
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// A host of its own.
pub struct Stage {
    host: Host,
    dir: tempfile::TempDir,
    launcher: Child,
    /// The image, then what the build made.
    layers: Mutex<Vec<Layer>>,
}

/// How a command ended.
pub struct Ran {
    pub exit: Exit,
    pub output: String,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Stage {
    /// Makes the host and unpacks the image, as an agent does.
    pub async fn open(tar: &Path) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("berth-corpus-").tempdir_in("/var/tmp").map_err(text)?;
        let program = binaries().join("berth-launcher");
        let launcher = Command::new(&program).arg("--dir").arg(dir.path().join("launcher")).spawn();
        let launcher = launcher
            .map_err(|error| format!("{}: {error}; run cargo build --workspace first", program.display()))?;
        let name = format!("t-corpus-{}", std::process::id());
        let unpacker = binaries().join("berth-agent");
        let host = host::open(&name, dir.path(), POOL_BYTES, unpacker).await.map_err(text)?;
        let image = tokio::fs::File::open(tar).await.map_err(text)?;
        let layers = host.images.import_tar(image).await.map(|image| Mutex::new(vec![image]));
        let stage = Self { host, dir, launcher, layers: Mutex::default() };
        match layers {
            Ok(layers) => Ok(Self { layers, ..stage }),
            Err(error) => Err(format!("{}: {error}; {:?}", tar.display(), stage.close().await)),
        }
    }

    /// Runs a command as an app's.
    pub async fn run(&self, argv: Vec<String>) -> Result<Ran, String> {
        let (ran, _) = self.container(argv, (1_000, 1_000), Capabilities::App, None).await?;
        Ok(ran)
    }

    /// Runs a command as a build step of root's; what it changed lies above the image from then on.
    pub async fn build(&self, argv: Vec<String>) -> Result<Ran, String> {
        let (ran, layer) = self.container(argv, (0, 0), Capabilities::Build, Some("apt")).await?;
        self.layers.lock().map_err(text)?.extend(layer);
        Ok(ran)
    }

    fn spec(&self, argv: Vec<String>, user: (u32, u32), capabilities: Capabilities) -> ContainerSpec {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let env = [("PATH", path), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];
        let layers = self.layers.lock().map(|layers| layers.iter().map(|layer| layer.path.clone()).collect());
        ContainerSpec {
            id: InstanceId(uuid::Uuid::now_v7()),
            hostname: "corpus".into(),
            layers: layers.unwrap_or_default(),
            argv,
            env: BTreeMap::from(env.map(|(key, value)| (key.to_owned(), value.to_owned()))),
            cwd: "/app".into(),
            user,
            quota: Quota {
                cpu_millis: Bounds::new(50, 2_000),
                disk_bytes: Bounds::new(16 * MIB, 1_024 * MIB),
                ..Quota::default()
            },
            binds: vec![Bind {
                source: root().join("tests/corpus/programs"),
                target: "/corpus".into(),
                read_only: true,
            }],
            output: Output::File { path: self.log(), bytes_max: OUTPUT_BYTES_MAX, lines_per_second: 10_000 },
            capabilities,
            network: true,
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Runs it to its end; if it has a key and ended well, what it changed becomes a layer.
    async fn container(
        &self,
        argv: Vec<String>,
        user: (u32, u32),
        capabilities: Capabilities,
        key: Option<&str>,
    ) -> Result<(Ran, Option<Layer>), String> {
        let spec = self.spec(argv, user, capabilities);
        let id = spec.id;
        self.host.start(spec).await.map_err(text)?;
        let exit = tokio::time::timeout(RUN_MAX, self.host.wait(id)).await.unwrap_or(Exit::TimedOut);
        let kept = match (key, &exit, self.host.disk.get(id)) {
            (Some(key), Exit::Code(0), Some(scratch)) => {
                self.host.disk.leave_to_layers(id);
                Some(self.host.images.layer_from_upper(&scratch.upper, key).await.map_err(text))
            }
            _ => None,
        };
        self.host.destroy(id, true).await.map_err(text)?;
        let written = fs::read_to_string(self.log()).map_err(text)?;
        fs::remove_file(self.log()).map_err(text)?;
        // Each line is stamped.
        let output = written.lines().map(|line| line.split_once(' ').map_or(line, |(_, said)| said));
        let output = output.collect::<Vec<_>>().join("\n");
        Ok((Ran { exit, output }, kept.transpose()?))
    }

    /// Takes it all down again; tries every part.
    pub async fn close(mut self) -> Result<(), String> {
        drop(self.layers);
        let closed = host::close(&self.host).await.map_err(text);
        self.launcher.kill().and_then(|()| self.launcher.wait()).map_err(text)?;
        closed?;
        self.host.installation.release().map_err(text)
    }
}

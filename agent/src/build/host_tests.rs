//! The pipeline on a real host: real containers, real packs, real package registries. Run where `BERTH_STACK_ROOT` names an
//! unpacked stack (`deploy/stack/build.sh`), as root, with `berth-launcher` built; says so and passes elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_wire::digest::Digest;
use berth_wire::id::InstanceId;
use berth_wire::name::ProcessType;
use berth_wire::quota::{Bounds, MIB, Quota};

use super::log::BuildLog;
use super::pipeline::Pipeline;
use super::plan::Private;
use super::sandbox::Containers;
use super::source::Source;
use super::stage::{self, Stage};
use crate::cgroup::Cgroups;
use crate::container::{Host, Ready};
use crate::disk::Disk;
use crate::disk::shares::Shares;
use crate::image::{Images, ImagesConfig};
use crate::installation::Installation;
use crate::launch::{Launcher, UidRanges};
use crate::network::{Network, NetworkConfig};

const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

struct OwnLauncher(std::process::Child);

impl Drop for OwnLauncher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn open_host(work: &Path) -> (Host, OwnLauncher) {
    let installation = Installation::new(&format!("t-build-{}", std::process::id())).unwrap();
    // target/debug/deps/TEST -> target/debug/berth-launcher
    let program = std::env::current_exe().unwrap().parent().unwrap().with_file_name("berth-launcher");
    let dir = work.join("launcher");
    let process = std::process::Command::new(program).arg("--dir").arg(&dir).spawn().unwrap();
    let process = OwnLauncher(process);
    let cgroups = Cgroups::open(&installation).unwrap();
    let network = Network::open(&installation, NetworkConfig::default()).await.unwrap();
    let disk = Disk::open(&installation, work, Shares::divided(6 << 30)).await.unwrap();
    let config = ImagesConfig {
        layers_dir: disk.layers_dir(),
        unpacker: std::env::current_exe().unwrap(),
        bytes_max: u64::MAX,
    };
    let images = Images::open(&installation, config).await.unwrap();
    let mut launcher = Launcher::connect(&dir).await;
    while launcher.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        launcher = Launcher::connect(&dir).await;
    }
    let uids = UidRanges::new(installation.uid_block());
    (
        Host {
            installation,
            cgroups,
            network,
            disk,
            images,
            launcher: launcher.unwrap(),
            uids,
            ready: Ready::default(),
        },
        process,
    )
}

async fn build(
    host: &Arc<Host>,
    stack: &Path,
    app: &Path,
    work: &Path,
) -> Result<BTreeMap<ProcessType, String>, String> {
    let packs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/packs");
    let stage =
        Stage::new(work.join(format!("stage-{}", uuid::Uuid::now_v7())), &packs, Some(Path::new(BUNDLE)));
    let stage = stage.unwrap();
    let mut builder = tar::Builder::new(std::fs::File::create(stage.source_path()).unwrap());
    builder.append_dir_all(".", app).unwrap();
    builder.finish().unwrap();
    let source = Source::open(stage.source_path()).await.map_err(|error| error.message)?;
    let sandbox = Containers {
        host: host.clone(),
        id: InstanceId(uuid::Uuid::now_v7()),
        hostname: "test-build".to_owned(),
        quota: Quota {
            cpu_millis: Bounds::new(0, 2_000),
            memory_bytes: Bounds::new(0, 2_048 * MIB),
            pids: Bounds::new(0, 512),
            disk_bytes: Bounds::new(0, 2_048 * MIB),
            ..Quota::default()
        },
    };
    let log = BuildLog::new();
    let pipeline = Pipeline {
        sandbox: &sandbox,
        log: &log,
        source: &source,
        stage: &stage,
        packs,
        stack: (Digest::of(b"test stack"), vec![stack.to_owned()]),
        env: stage::environment(&BTreeMap::new(), true),
        config: BTreeMap::from([("SECRET".to_owned(), "s".to_owned())]),
        private: Private {
            app: "app".to_owned(),
            source: Digest::of(&std::fs::read(stage.source_path()).unwrap()),
            commit: Some("c0ffee".to_owned()),
            config: Digest::of(b"s"),
        },
        disk_bytes_max: sandbox.quota.disk_bytes.max,
        memory_bytes_max: sandbox.quota.memory_bytes.max,
    };
    let started = std::time::Instant::now();
    let outcome = pipeline.run(None).await;
    log.close();
    println!("{}\n{} in {:?}", log.text(), app.display(), started.elapsed());
    let outcome = outcome.map_err(|trouble| format!("{} {}", trouble.code, trouble.message))?;
    for layer in &outcome.layers {
        let strays = ["berth", "etc/ssl", "tmp/berth-env"].map(|path| layer.path.join(path));
        assert!(!strays.iter().any(|path| path.exists()), "{} has files of the build", layer.path.display());
    }
    Ok(outcome.release.processes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_apps_must_build_in_containers() {
    let Some(stack) = std::env::var_os("BERTH_STACK_ROOT").map(PathBuf::from) else {
        eprintln!("not run: BERTH_STACK_ROOT does not name an unpacked stack");
        return;
    };
    let work = tempfile::Builder::new().prefix("berth-build-").tempdir_in("/var/tmp").unwrap();
    let (host, launcher) = open_host(work.path()).await;
    let host = Arc::new(host);
    let apps = std::env::var("BERTH_TEST_APPS").unwrap_or_else(|_| {
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/apps");
        ["worker", "static", "python", "python", "node"].map(|app| format!("{demo}/{app}")).join(":")
    });
    let mut failed = Vec::new();
    for app in apps.split(':') {
        if let Err(error) = build(&host, &stack, Path::new(app), work.path()).await {
            failed.push(format!("{app}: {error}"));
        }
    }
    host.network.close_down().await.unwrap();
    host.cgroups.close_down().unwrap();
    host.disk.close().await.unwrap();
    drop(launcher);
    host.installation.release().unwrap();
    assert!(failed.is_empty(), "{failed:?}");
}

//! A control plane with one app, a working copy beside it, and the stand-in for hosts and planner that decides how builds
//! and releases end.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use berth_control_plane::admin;
use berth_control_plane::app::{App, Clock};
use berth_control_plane::config::Config;
use berth_control_plane::store::apps::AppRow;
use berth_control_plane::store::builds::{self, BuildRow};
use berth_control_plane::store::{apps, releases, stacks, teams};
use berth_control_plane::{git, router};
use berth_wire::api::{BuildStatus, ReleaseStatus};
use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::id::AppId;
use berth_wire::image::{AppManifest, ImageRef};
use berth_wire::report::Trouble;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

/// Nothing here waits for anything slower than git.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub app: App,
    pub row: AppRow,
    pub url: String,
    pub work: PathBuf,
    _dir: tempfile::TempDir,
}

pub fn image(name: &str) -> ImageRef {
    ImageRef { repository: "stacks/berth-13".into(), digest: Digest::of(name.as_bytes()) }
}

pub async fn world() -> World {
    world_with(|_| {}).await
}

pub async fn world_with(change: impl FnOnce(&mut Config)) -> World {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let public = format!("http://{address}");
    let mut config =
        Config::new(&dir.path().join("control"), address, &public, "http://localhost:8080".parse().unwrap());
    change(&mut config);
    let app = App::open(config, Clock::system()).await.unwrap();
    let token = admin::token_create(&app.store, "ann", app.clock.now()).await.unwrap();
    let row = AppRow {
        id: AppId(Uuid::now_v7()),
        team: teams::DEFAULT,
        name: "shop".parse().unwrap(),
        created_at: app.clock.now(),
        deleted_at: None,
        domains: vec!["shop.localhost".parse().unwrap()],
    };
    let mut tx = app.store.begin().await.unwrap();
    apps::insert(&app.store, &mut tx, &row).await.unwrap();
    stacks::put(&mut tx, "berth-13", &image("stack"), app.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    git::start(&app, Path::new(env!("CARGO_BIN_EXE_berthd"))).await.unwrap();
    let served = app.clone();
    tokio::spawn(async move { axum::serve(listener, router::router(served)).await });
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let world =
        World { app, row, url: format!("http://berth:{token}@{address}/git/shop.git"), work, _dir: dir };
    world.git(&["init", "-q", "-b", "main"]).await;
    world
}

impl World {
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(&self.work)
            .args(arguments)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null());
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0");
        for (name, value) in [("AUTHOR", "a"), ("COMMITTER", "c")] {
            command.env(format!("GIT_{name}_NAME"), value).env(format!("GIT_{name}_EMAIL"), "x@example.org");
        }
        command
    }

    pub async fn git(&self, arguments: &[&str]) -> Output {
        timeout(PATIENCE, self.command(arguments).output()).await.expect("git takes too long").unwrap()
    }

    pub async fn commit(&self, file: &str, content: &str) -> String {
        std::fs::write(self.work.join(file), content).unwrap();
        self.git(&["add", "-A"]).await;
        self.git(&["commit", "-q", "-m", file]).await;
        String::from_utf8(self.git(&["rev-parse", "HEAD"]).await.stdout).unwrap().trim().to_owned()
    }

    pub fn push(&self, refspec: &str) -> Child {
        self.command(&["push", &self.url, refspec])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The one build that has not ended.
    pub async fn open_build(&self) -> BuildRow {
        let mut changed = self.app.wakes.watch();
        timeout(PATIENCE, async {
            loop {
                let open = builds::list_open(&mut self.app.store.read().await.unwrap()).await.unwrap();
                if let Some(build) = open.into_iter().next() {
                    return build;
                }
                changed.changed().await.unwrap();
            }
        })
        .await
        .expect("no build was queued")
    }

    pub async fn end_build(&self, mut build: BuildRow, trouble: Option<Trouble>) {
        if trouble.is_none() {
            return self.end_build_with(build, &["web"]).await;
        }
        (build.status, build.trouble) = (BuildStatus::Failed, trouble);
        self.put_build(build).await;
    }

    /// It succeeds with an image that has these process types.
    pub async fn end_build_with(&self, mut build: BuildRow, processes: &[&str]) {
        build.status = BuildStatus::Succeeded;
        build.image = Some(image(build.commit.as_deref().unwrap_or("upload")));
        let processes = processes.iter().map(|process| (process.parse().unwrap(), "serve".into())).collect();
        build.manifest = Some(AppManifest { processes, ..AppManifest::default() });
        self.put_build(build).await;
    }

    async fn put_build(&self, mut build: BuildRow) {
        build.ended_at = Some(self.app.clock.now());
        let mut tx = self.app.store.begin().await.unwrap();
        builds::update(&mut tx, &build).await.unwrap();
        tx.commit().await.unwrap();
        self.app.wakes.changed();
    }

    pub async fn build_says(&self, build: &BuildRow, words: &str) {
        let length = self.app.build_logs.read(build.id, 0).await.unwrap().len() as u64;
        self.app.build_logs.append(build.id, length, words.as_bytes()).await.unwrap();
        self.app.wakes.changed();
    }

    pub async fn end_release(&self, version: u64, status: ReleaseStatus, trouble: Option<Trouble>) {
        let mut changed = self.app.wakes.watch();
        timeout(PATIENCE, async {
            while self.release(version).await.is_none() {
                changed.changed().await.unwrap();
            }
        })
        .await
        .expect("no release was made");
        let mut tx = self.app.store.begin().await.unwrap();
        let now = Some(self.app.clock.now());
        releases::update(&mut tx, (self.row.id, version), status, now, trouble.as_ref()).await.unwrap();
        tx.commit().await.unwrap();
        self.app.wakes.changed();
    }

    pub async fn release(&self, version: u64) -> Option<berth_control_plane::domain::release::Release> {
        let mut conn = self.app.store.read().await.unwrap();
        releases::find(&self.app.store, &mut conn, self.row.id, version).await.unwrap()
    }

    pub async fn branch(&self) -> Option<(String, String)> {
        let refs = self.app.git.repositories.deploy_refs(self.row.id).await.unwrap();
        assert!(refs.len() <= 1, "{refs:?}");
        refs.into_iter().next().map(|found| (found.branch, found.commit))
    }

    /// Pushes and lets everything go well.
    pub async fn deploy(&self, refspec: &str, version: u64) -> String {
        let push = self.push(refspec);
        let build = self.open_build().await;
        self.end_build(build, None).await;
        self.end_release(version, ReleaseStatus::Current, None).await;
        let (success, words) = ended(push).await;
        assert!(success, "{words}");
        words
    }
}

pub async fn ended(push: Child) -> (bool, String) {
    let output = timeout(PATIENCE, push.wait_with_output()).await.expect("the push takes too long").unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

pub fn trouble(code: Code, message: &str) -> Option<Trouble> {
    Some(Trouble { code, message: message.into(), log_tail: vec!["Traceback".into()] })
}

/// Twelve MiB that do not compress: git sends them in chunks, as it does above http.postBuffer.
pub fn noise() -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
    .take(1_500_000)
    .flat_map(u64::to_le_bytes)
    .collect()
}

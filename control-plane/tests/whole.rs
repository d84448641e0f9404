//! The whole control plane as it is started: `berthd` as an unprivileged user with an empty environment, real git, and a
//! host that is made up but speaks the agents' real protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use berth_wire::api::{Build, BuildStatus, Release, ReleaseStatus};
use berth_wire::digest::Digest;
use berth_wire::image::{AppManifest, ImageRef};
use berth_wire::log::{LogLine, LogSource};
use berth_wire::quota::MIB;
use berth_wire::report::{Built, EdgeReport, Exit, HostFacts, InstanceReport, InstanceState, Report};
use berth_wire::session::{Session, SessionRequest};
use berth_wire::spec::{Desired, InstanceSpec, Spec, Work};
use jiff::Timestamp;
use reqwest::{Client, Method, Response};
use serde::de::DeserializeOwned;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// Nobody's user: no passwd entry, no home.
const UID: u32 = 54_321;

struct World {
    dir: tempfile::TempDir,
    port: u16,
    client: Client,
    token: String,
    host_token: String,
    daemon: Child,
    /// Builds end only while this is true.
    may_build: watch::Sender<bool>,
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl World {
    fn data(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("control");
        std::fs::create_dir(&data).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&data, Some(UID), Some(UID)).unwrap();
            std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let say = async |arguments: &[&str]| {
            let mut command = berthd();
            command.args(arguments).arg("--data").arg(&data);
            let output = command.output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let token = say(&["token", "create", "--name", "t"]).await.trim().to_owned();
        let host_token = say(&["host", "add", "--name", "h1"]).await.lines().nth(1).unwrap().to_owned();
        let daemon = start(&data, port);
        let client = Client::builder().no_proxy().build().unwrap();
        let world =
            Self { dir, port, client, token, host_token, daemon, may_build: watch::Sender::new(true) };
        world.until_up().await;
        world
    }

    async fn until_up(&self) {
        timeout(PATIENCE, async {
            while self.client.get(self.url("/healthz")).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("berthd does not come up");
    }

    async fn restart(&mut self) {
        self.daemon.kill().await.unwrap();
        self.daemon = start(&self.data(), self.port);
        self.until_up().await;
    }

    async fn call(&self, method: Method, path: &str, body: Option<serde_json::Value>) -> Response {
        let mut request = self.client.request(method, self.url(path)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.call(Method::GET, path, None).await;
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A stack and an app, and a host that begins to work.
    async fn furnish(&self) {
        let image = self.push_stack().await;
        let body = serde_json::json!({ "image": image });
        assert!(self.call(Method::PUT, "/v1/stacks/berth-13", Some(body)).await.status().is_success());
        let body = serde_json::json!({ "name": "shop" });
        assert_eq!(self.call(Method::POST, "/v1/apps", Some(body)).await.status(), 201);
        let host = Arc::new(Host {
            client: self.client.clone(),
            base: self.url("/agent/v1"),
            token: self.host_token.clone(),
            may_build: self.may_build.subscribe(),
        });
        tokio::spawn(Arc::clone(&host).work());
        tokio::spawn(host.serve_sessions());
    }

    /// An image without layers, pushed as any client would.
    async fn push_stack(&self) -> ImageRef {
        let send = async |method: Method, path: String, kind: &str, body: String| {
            let request = self.client.request(method, self.url(&format!("/v2/stacks/berth-13/{path}")));
            let request = request.basic_auth("berth", Some(&self.token)).header("content-type", kind);
            assert_eq!(request.body(body).send().await.unwrap().status(), 201);
        };
        let config = Digest::of(b"{}");
        let blob = "application/octet-stream";
        send(Method::POST, format!("blobs/uploads/?digest={config}"), blob, "{}".into()).await;
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let descriptor = format!(
            r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"{config}"}}"#
        );
        let manifest =
            format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{descriptor},"layers":[]}}"#);
        let digest = Digest::of(manifest.as_bytes());
        send(Method::PUT, "manifests/latest".into(), kind, manifest).await;
        ImageRef { repository: "stacks/berth-13".into(), digest }
    }

    fn git(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(self.dir.path().join("work"))
            .args(arguments)
            .kill_on_drop(true)
            .stdin(Stdio::null());
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0");
        for name in ["GIT_AUTHOR", "GIT_COMMITTER"] {
            command.env(format!("{name}_NAME"), "n").env(format!("{name}_EMAIL"), "n@example.org");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn commit(&self, content: &str) {
        let work = self.dir.path().join("work");
        if !work.exists() {
            std::fs::create_dir(&work).unwrap();
            self.git(&["init", "-q", "-b", "main"]).output().await.unwrap();
        }
        std::fs::write(work.join("app.py"), content).unwrap();
        self.git(&["add", "-A"]).output().await.unwrap();
        assert!(self.git(&["commit", "-q", "-m", "c"]).output().await.unwrap().status.success());
    }

    fn push(&self) -> Child {
        let url = format!("http://berth:{}@127.0.0.1:{}/git/shop.git", self.token, self.port);
        self.git(&["push", &url, "main"]).spawn().unwrap()
    }
}

fn berthd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berthd"));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("BERTH_LOG", "warn").current_dir("/");
    command.kill_on_drop(true).stdin(Stdio::null());
    if is_root() {
        command.uid(UID).gid(UID);
    }
    command
}

fn start(data: &std::path::Path, port: u16) -> Child {
    let listen = format!("127.0.0.1:{port}");
    let mut command = berthd();
    command.args(["serve", "--listen", &listen, "--public-url", &format!("http://{listen}")]);
    command.args(["--apps-url", "http://localhost:8080", "--data"]).arg(data);
    command.spawn().unwrap()
}

async fn ended(push: Child) -> (bool, String) {
    let output = timeout(PATIENCE, push.wait_with_output()).await.expect("the push takes too long").unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A host that does whatever its spec says, at once and well.
struct Host {
    client: Client,
    base: String,
    token: String,
    may_build: watch::Receiver<bool>,
}

impl Host {
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}/{path}", self.base)).bearer_auth(&self.token)
    }

    async fn work(self: Arc<Self>) {
        let mut spec: Option<Spec> = None;
        loop {
            // The control plane may be away: that is part of the test.
            let after = spec.as_ref().map_or_else(String::new, |spec| {
                format!("&epoch={}&after={}", spec.generation.epoch, spec.generation.number)
            });
            let answer = self.request(Method::GET, &format!("spec?wait=1{after}")).send().await;
            let Ok(answer) = answer else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            if answer.status() == 200 {
                spec = Some(serde_json::from_str(&answer.text().await.unwrap()).unwrap());
            }
            let report = self.report(spec.as_ref()).await;
            let _ = self.request(Method::POST, "report").json(&report).send().await;
        }
    }

    async fn report(&self, spec: Option<&Spec>) -> Report {
        let mut instances = Vec::new();
        for instance in spec.map(|spec| spec.instances.as_slice()).unwrap_or_default() {
            instances.push(self.instance(instance).await);
        }
        let routed = spec.iter().flat_map(|spec| &spec.routes).flat_map(|route| route.instances.clone());
        Report {
            generation: spec.map(|spec| spec.generation),
            instances,
            edge: EdgeReport { connected: true, table: 1, serving: routed.collect() },
            host: HostFacts {
                cpu_millis: 4_000,
                memory_bytes: 8_192 * MIB,
                disk_bytes: 100_000 * MIB,
                pids: 32_768,
                ..HostFacts::default()
            },
            samples: vec![],
            events: vec![],
        }
    }

    async fn instance(&self, spec: &InstanceSpec) -> InstanceReport {
        let mut report = InstanceReport {
            id: spec.id,
            state: InstanceState::Healthy,
            since: Timestamp::UNIX_EPOCH,
            restarts: 0,
            last_exit: None,
            trouble: None,
            built: None,
            quota: None,
            refused: None,
        };
        let may_build = *self.may_build.borrow();
        match (&spec.work, spec.desired) {
            (Work::Build(build), Desired::Run) if may_build => {
                let source =
                    self.request(Method::GET, &format!("sources/{}", build.source)).send().await.unwrap();
                assert_eq!(Digest::of(&source.bytes().await.unwrap()), build.source);
                let log = format!("builds/{}/log?offset=0", build.build);
                self.request(Method::POST, &log).body("-----> Built by hand\n").send().await.unwrap();
                let processes = [("web".parse().unwrap(), "serve".to_owned())].into();
                report.state = InstanceState::Exited;
                report.last_exit = Some(Exit::Code(0));
                report.built = Some(Built {
                    image: ImageRef { repository: build.repository.clone(), digest: build.source.clone() },
                    app: AppManifest { processes, ..AppManifest::default() },
                });
            }
            (_, Desired::Drain) => report.state = InstanceState::Exited,
            _ => {}
        }
        report
    }

    async fn serve_sessions(self: Arc<Self>) {
        loop {
            let Ok(answer) = self.request(Method::GET, "sessions?wait=2").send().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let sessions: Vec<Session> = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            for session in sessions {
                assert!(matches!(session.request, SessionRequest::Logs { .. }), "{session:?}");
                let line = LogLine {
                    at: Timestamp::now(),
                    source: LogSource::App,
                    process: "web.1".into(),
                    text: "Listening".into(),
                };
                let body = serde_json::to_string(&line).unwrap() + "\n";
                self.request(Method::POST, &format!("sessions/{}", session.id))
                    .body(body)
                    .send()
                    .await
                    .unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_must_end_in_a_release_that_serves_and_survive_a_killed_control_plane() {
    let mut world = World::new().await;
    world.furnish().await;
    world.commit("1").await;
    let (success, words) = ended(world.push()).await;
    assert!(success, "{words}");
    for part in ["-----> Built by hand", "v1 serves", "http://shop.localhost:8080/"] {
        assert!(words.contains(part), "{part} is missing in {words}");
    }
    let release: Release = world.get("/v1/apps/shop/releases/1").await;
    assert_eq!(release.status, ReleaseStatus::Current);

    // Killed in the middle of a build.
    world.may_build.send_replace(false);
    world.commit("2").await;
    let push = world.push();
    timeout(PATIENCE, async {
        while world.get::<Vec<Build>>("/v1/apps/shop/builds").await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("no build was queued");
    world.restart().await;
    assert!(!ended(push).await.0);
    world.may_build.send_replace(true);
    let (success, words) = ended(world.push()).await;
    assert!(success && words.contains("going on from there") && words.contains("v2 serves"), "{words}");
    let builds: Vec<Build> = world.get("/v1/apps/shop/builds").await;
    assert_eq!(builds.len(), 2, "the build must have been gone on with");
    let log = world
        .call(Method::GET, &format!("/v1/apps/shop/builds/{}/log?follow=true", builds[0].id), None)
        .await;
    assert_eq!(log.text().await.unwrap(), "-----> Built by hand\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_must_become_a_release_and_its_log_be_read() {
    let world = World::new().await;
    world.furnish().await;
    world.commit("1").await;
    let tar = world.git(&["archive", "--format=tar", "HEAD"]).output().await.unwrap().stdout;
    let upload = async |body: Vec<u8>| {
        let request = world.client.post(world.url("/v1/apps/shop/builds")).bearer_auth(&world.token);
        request.header("content-type", "application/x-tar").body(body).send().await.unwrap()
    };
    assert!(upload(vec![]).await.text().await.unwrap().contains("B11"));
    assert!(upload(vec![b'x'; 4_000]).await.text().await.unwrap().contains("A13"));
    let answer = upload(tar).await;
    assert_eq!(answer.status(), 201);
    let build: Build = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let log =
        world.call(Method::GET, &format!("/v1/apps/shop/builds/{}/log?follow=true", build.id), None).await;
    assert_eq!(log.text().await.unwrap(), "-----> Built by hand\n");
    let build: Build = world.get(&format!("/v1/apps/shop/builds/{}", build.id)).await;
    assert_eq!((build.status, build.release), (BuildStatus::Succeeded, Some(1)));
    let release: Release = world.get("/v1/apps/shop/releases/1?wait=30").await;
    assert_eq!(release.status, ReleaseStatus::Current);

    let logs = world.call(Method::GET, "/v1/apps/shop/logs?n=50", None).await.text().await.unwrap();
    let lines: Vec<LogLine> = logs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line.text == "Listening"), "{logs}");
    assert!(lines.iter().any(|line| line.source == LogSource::Berth), "{logs}");
    assert!(lines.is_sorted_by_key(|line| line.at), "{logs}");
    let mut follow = world.call(Method::GET, "/v1/apps/shop/logs?n=1&follow=true", None).await;
    let mut text = String::new();
    world.call(Method::POST, "/v1/apps/shop/restart", None).await;
    timeout(PATIENCE, async {
        while !text.contains("Restart") {
            text.push_str(std::str::from_utf8(&follow.chunk().await.unwrap().unwrap()).unwrap());
        }
    })
    .await
    .unwrap_or_else(|_| panic!("the restart is missing in {text}"));
}

//! A control plane over its real router and store, and a host that is made up: it takes its spec and answers with a
//! report over the same endpoints as a real agent. Time stands still until a test moves it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use crate::admin;
use crate::app::{App, Clock};
use crate::config::Config;
use crate::domain::release::Why;
use crate::router::router;
use crate::store::builds::{self, BuildRow};
use crate::store::{apps, releases, teams};
use crate::tasks::plan_hosts::plan_once;
use axum::body::Body;
use berth_wire::api::{Build, Instance, Release, ReleaseStatus};
use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::id::{BuildId, InstanceId};
use berth_wire::image::{AppManifest, ImageRef};
use berth_wire::quota::MIB;
use berth_wire::report::{
    Built, EdgeReport, Exit, HostFacts, InstanceReport, InstanceState, RefusedQuota, Report, Trouble,
};
use berth_wire::spec::{Desired, InstanceSpec, Spec, Work};
use http::{Request, StatusCode};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

/// How a made-up process behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// It comes up.
    Well,
    /// It exits at once.
    ExitsAtOnce,
    /// It neither comes up nor goes down.
    Hangs,
    /// Its agent was killed in the middle (builds).
    Interrupted,
    /// It comes up, and cannot be given another quota while it runs.
    Stubborn,
}

/// How each process behaves.
pub type Acts = Box<dyn Fn(&InstanceSpec) -> Behaviour + Send>;

pub struct Fleet {
    pub app: App,
    host_token: String,
    api_token: String,
    clock: Arc<AtomicI64>,
    reports: Mutex<BTreeMap<InstanceId, InstanceReport>>,
    pub behaviour: Mutex<Acts>,
    pub memory_bytes: u64,
    pub edge_connected: bool,
    data: tempfile::TempDir,
}

pub fn config(data: &std::path::Path) -> Config {
    let listen = "127.0.0.1:1".parse().unwrap();
    Config::new(data, listen, "http://127.0.0.1:7000", "http://localhost:8080".parse().unwrap())
}

impl Fleet {
    pub async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(1_800_000_000_000_000));
        let told = clock.clone();
        let clock_of =
            Clock::from_fn(move || Timestamp::from_microsecond(told.load(Ordering::Relaxed)).unwrap());
        let app = App::open(config(data.path()), clock_of).await.unwrap();
        let now = app.clock.now();
        let api_token = admin::token_create(&app.store, "tester", now).await.unwrap();
        let (_, host_token) = admin::host_add(&app.store, "h1", now).await.unwrap();
        let fleet = Self {
            app,
            host_token,
            api_token,
            clock,
            reports: Mutex::default(),
            behaviour: Mutex::new(Box::new(|_| Behaviour::Well)),
            memory_bytes: 4_096 * MIB,
            edge_connected: true,
            data,
        };
        fleet.beat().await;
        fleet
    }

    /// As after kill -9: everything from disk again.
    pub async fn restart(&mut self) {
        let clock = self.app.clock.clone();
        self.app = App::open(config(self.data.path()), clock).await.unwrap();
    }

    pub fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    pub fn api_token(&self) -> &str {
        &self.api_token
    }

    pub fn host_token(&self) -> &str {
        &self.host_token
    }

    pub async fn send(&self, token: &str, method: &str, path: &str, body: &str) -> (StatusCode, Vec<u8>) {
        self.send_as(&format!("Bearer {token}"), method, path, body).await
    }

    pub async fn send_as(&self, who: &str, method: &str, path: &str, body: &str) -> (StatusCode, Vec<u8>) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", who)
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let answer = router(self.app.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        (status, axum::body::to_bytes(answer.into_body(), 1 << 24).await.unwrap().to_vec())
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> (StatusCode, serde_json::Value) {
        let (status, bytes) = self.send(&self.api_token, method, path, body).await;
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, value) = self.call("GET", path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {value}");
        serde_json::from_value(value).unwrap()
    }

    /// One turn of the host: take the spec, do what it says, report; then the planner looks.
    pub async fn beat(&self) {
        plan_once(&self.app).await.unwrap();
        let (status, body) = self.send(&self.host_token, "GET", "/agent/v1/spec", "").await;
        assert_eq!(status, StatusCode::OK);
        let spec: Spec = serde_json::from_slice(&body).unwrap();
        let report = self.obey(&spec);
        let report = serde_json::to_string(&report).unwrap();
        let (status, _) = self.send(&self.host_token, "POST", "/agent/v1/report", &report).await;
        assert_eq!(status, StatusCode::OK);
        plan_once(&self.app).await.unwrap();
    }

    pub async fn beats(&self, n: usize) {
        for _ in 0..n {
            self.pass(1);
            self.beat().await;
        }
    }

    pub async fn spec(&self) -> Spec {
        let (_, body) = self.send(&self.host_token, "GET", "/agent/v1/spec", "").await;
        serde_json::from_slice(&body).unwrap()
    }

    fn obey(&self, spec: &Spec) -> Report {
        let mut reports = self.reports.lock().unwrap();
        reports.retain(|id, _| spec.instances.iter().any(|i| i.id == *id));
        for instance in &spec.instances {
            let behaviour = (self.behaviour.lock().unwrap())(instance);
            let before = reports.remove(&instance.id);
            reports.insert(instance.id, turn(instance, before, behaviour, self.app.clock.now()));
        }
        let routed = spec.routes.iter().flat_map(|r| r.instances.iter().copied());
        let healthy = |id: &InstanceId| reports[id].state == InstanceState::Healthy;
        let edge = EdgeReport {
            connected: self.edge_connected,
            table: 1,
            serving: routed.filter(healthy).collect(),
        };
        let host = HostFacts {
            cpu_millis: 2_000,
            memory_bytes: self.memory_bytes,
            disk_bytes: 100_000 * MIB,
            pids: 32_768,
            ..HostFacts::default()
        };
        Report {
            generation: Some(spec.generation),
            instances: reports.values().cloned().collect(),
            edge,
            host,
            samples: vec![],
            events: vec![],
        }
    }

    /// A build as an upload asks for it: its success makes a release.
    pub async fn upload(&self, app: &str) -> BuildId {
        let mut tx = self.app.store.begin().await.unwrap();
        let row = apps::find(&mut tx, teams::DEFAULT, &app.parse().unwrap()).await.unwrap().unwrap();
        let stack = ImageRef { repository: "stacks/berth-13".into(), digest: Digest::of(b"stack") };
        let id = BuildId(uuid::Uuid::now_v7());
        let what = (Digest::of(b"source"), stack);
        let build = BuildRow::queued(id, row.id, what, None, ("tester", true), self.app.clock.now());
        builds::insert(&mut tx, &build).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub async fn build(&self, app: &str, id: BuildId) -> Build {
        self.get(&format!("/v1/apps/{app}/builds/{id}")).await
    }

    /// A release of a new image with these processes, as a push makes it.
    pub async fn deploy(&self, app: &str, commit: &str, processes: &[(&str, &str)]) -> u64 {
        let processes = processes.iter().map(|(p, c)| (p.parse().unwrap(), (*c).to_owned())).collect();
        let image = ImageRef { repository: "apps/x".into(), digest: Digest::of(commit.as_bytes()) };
        let manifest = AppManifest { processes, ..AppManifest::default() };
        let why = Why::Deploy { image, manifest, commit: Some(commit.to_owned()), build: None };
        let mut tx = self.app.store.begin().await.unwrap();
        let row = apps::find(&mut tx, teams::DEFAULT, &app.parse().unwrap()).await.unwrap().unwrap();
        let now = self.app.clock.now();
        let made =
            releases::create(&self.app.store, &mut tx, row.id, why, "tester", now).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        made.version
    }

    pub async fn create(&self, app: &str) {
        let (status, body) = self.call("POST", "/v1/apps", &format!(r#"{{"name":"{app}"}}"#)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }

    pub async fn release(&self, app: &str, version: u64) -> Release {
        self.get(&format!("/v1/apps/{app}/releases/{version}")).await
    }

    pub async fn status(&self, app: &str, version: u64) -> ReleaseStatus {
        self.release(app, version).await.status
    }

    pub async fn instances(&self, app: &str) -> Vec<Instance> {
        self.get(&format!("/v1/apps/{app}/instances")).await
    }
}

fn turn(
    instance: &InstanceSpec,
    before: Option<InstanceReport>,
    behaviour: Behaviour,
    now: Timestamp,
) -> InstanceReport {
    let fresh = InstanceReport {
        id: instance.id,
        state: InstanceState::Preparing,
        since: now,
        restarts: 0,
        last_exit: None,
        trouble: None,
        built: None,
        quota: None,
        refused: None,
    };
    let Some(before) = before else { return fresh };
    let state = match (instance.desired, before.state, behaviour) {
        (Desired::Drain, InstanceState::Draining, _) => InstanceState::Exited,
        (Desired::Drain, InstanceState::Exited, _) => InstanceState::Exited,
        (Desired::Drain, InstanceState::Healthy, _) => InstanceState::Draining,
        (Desired::Drain, _, _) => InstanceState::Exited,
        (Desired::Run, _, Behaviour::Hangs) => InstanceState::Starting,
        (Desired::Run, InstanceState::Preparing, _) => InstanceState::Starting,
        (Desired::Run, InstanceState::Exited, _) => InstanceState::Exited,
        (Desired::Run, _, Behaviour::Interrupted) => InstanceState::Exited,
        (Desired::Run, _, Behaviour::ExitsAtOnce) => InstanceState::BackingOff,
        (Desired::Run, _, Behaviour::Well | Behaviour::Stubborn) => InstanceState::Healthy,
    };
    let once = !matches!(instance.work, Work::Service(_));
    let state = match state {
        InstanceState::Healthy | InstanceState::BackingOff if once => InstanceState::Exited,
        other => other,
    };
    let crashed = behaviour == Behaviour::ExitsAtOnce && instance.desired == Desired::Run;
    let ended = matches!(state, InstanceState::Exited | InstanceState::BackingOff);
    let interrupted = behaviour == Behaviour::Interrupted;
    let trouble = ((crashed || interrupted) && ended).then(|| Trouble {
        code: if interrupted { Code::B18 } else { Code::R16 },
        message: "exited with status 1 after 0.1 s".into(),
        log_tail: vec!["Traceback".into(), "ImportError: no module named app".into()],
    });
    let built = match &instance.work {
        Work::Build(build) if state == InstanceState::Exited && trouble.is_none() => {
            Some(built(&build.repository))
        }
        _ => None,
    };
    let last_exit = ended.then_some(Exit::Code(u8::from(crashed)));
    let restarts = before.restarts + u32::from(crashed && before.state == InstanceState::BackingOff);
    let since = if state == before.state { before.since } else { now };
    let running = (state == InstanceState::Healthy).then_some(instance.quota);
    let (quota, refused) = match before.quota {
        Some(in_force) if in_force != instance.quota && behaviour == Behaviour::Stubborn => {
            let refused = RefusedQuota { quota: instance.quota, reason: "it uses too much".into() };
            (Some(in_force), Some(refused))
        }
        _ => (running, None),
    };
    InstanceReport { state, since, restarts, last_exit, trouble, built, quota, refused, ..before }
}

fn built(repository: &str) -> Built {
    let processes = [("web".parse().unwrap(), "run".to_owned())].into();
    let app = AppManifest { pack: "python".into(), processes, ..AppManifest::default() };
    Built { image: ImageRef { repository: repository.into(), digest: Digest::of(b"built") }, app }
}

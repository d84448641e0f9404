//! The link against a control plane that is played over real HTTP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use berth_wire::id::{AppId, HostId, SessionId};
use berth_wire::log::LogLine;
use berth_wire::report::{HostFacts, InstanceSample, Report, ReportReceipt};
use berth_wire::session::{Session, SessionRequest};
use berth_wire::spec::{Generation, Spec};
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::client::Link;
use super::reports::{self, Sampled, Sources};
use super::sessions::{self, Scrape};
use super::specs;
use crate::journal::{Happening, Journal};
use crate::ledger::Ledger;
use crate::logs::source::Places;
use crate::reconcile::Snapshot;

const HOST: HostId = HostId(Uuid::from_u128(1));
const TOKEN: &str = "berth_host_played";

fn spec(number: u64) -> Spec {
    Spec { host: HOST, generation: Generation { epoch: 1, number }, instances: vec![], routes: vec![] }
}

/// What the played control plane knows.
struct Plane {
    spec: watch::Sender<Spec>,
    reports: mpsc::UnboundedSender<Report>,
    sessions: Mutex<Vec<Session>>,
    opened: tokio::sync::Notify,
    streams: mpsc::UnboundedSender<(String, Bytes)>,
    failures: Mutex<u32>,
}

type Plan = State<Arc<Plane>>;

#[derive(serde::Deserialize)]
struct After {
    epoch: Option<u64>,
    after: Option<u64>,
}

async fn get_spec(State(plane): Plan, headers: HeaderMap, Query(after): Query<After>) -> Response {
    if headers.get("authorization").is_none_or(|v| v != &format!("Bearer {TOKEN}")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    {
        let mut failures = plane.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return StatusCode::BAD_GATEWAY.into_response();
        }
    }
    let have = after.epoch.zip(after.after).map(|(epoch, number)| Generation { epoch, number });
    let mut specs = plane.spec.subscribe();
    let newer = specs.wait_for(|spec| have.is_none_or(|have| spec.generation > have));
    match tokio::time::timeout(Duration::from_secs(1), newer).await {
        Ok(spec) => Json(spec.unwrap().clone()).into_response(),
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn post_report(State(plane): Plan, Json(report): Json<Report>) -> Json<ReportReceipt> {
    let events_received = report.events.last().map_or(0, |event| event.number);
    plane.reports.send(report).unwrap();
    Json(ReportReceipt { events_received })
}

async fn get_sessions(State(plane): Plan) -> Json<Vec<Session>> {
    let waiting = std::mem::take(&mut *plane.sessions.lock().unwrap());
    if waiting.is_empty() {
        let _ = tokio::time::timeout(Duration::from_secs(1), plane.opened.notified()).await;
        return Json(std::mem::take(&mut *plane.sessions.lock().unwrap()));
    }
    Json(waiting)
}

async fn post_session(State(plane): Plan, Path(id): Path<String>, body: Bytes) -> StatusCode {
    plane.streams.send((id, body)).unwrap();
    StatusCode::NO_CONTENT
}

struct Played {
    plane: Arc<Plane>,
    link: Link,
    reports: mpsc::UnboundedReceiver<Report>,
    streams: mpsc::UnboundedReceiver<(String, Bytes)>,
    dir: tempfile::TempDir,
}

async fn played(token: &str) -> Played {
    let ((report_sender, reports), (stream_sender, streams)) =
        (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let plane = Arc::new(Plane {
        spec: watch::Sender::new(spec(1)),
        reports: report_sender,
        sessions: Mutex::default(),
        opened: tokio::sync::Notify::new(),
        streams: stream_sender,
        failures: Mutex::default(),
    });
    let app = Router::new()
        .route("/agent/v1/spec", get(get_spec))
        .route("/agent/v1/report", post(post_report))
        .route("/agent/v1/sessions", get(get_sessions))
        .route("/agent/v1/sessions/{id}", post(post_session))
        .with_state(plane.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let link = Link::new(&base, SecretString::from(token.to_owned())).unwrap();
    Played { plane, link, reports, streams, dir: tempfile::tempdir().unwrap() }
}

struct NoSamples;

impl Sampled for NoSamples {
    fn newest(&self) -> Vec<InstanceSample> {
        vec![]
    }
    fn host_facts(&self) -> HostFacts {
        HostFacts { kernel: "played".into(), ..HostFacts::default() }
    }
}

struct NoCommands;

impl sessions::Attend for NoCommands {
    async fn attend<C>(&self, _: berth_wire::session::SessionRequest, _: C)
    where
        C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    {
    }
}

impl Scrape for NoSamples {
    async fn scrape(&self) -> String {
        "up 1\n".to_owned()
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it must happen within 20 s")
}

#[tokio::test]
async fn every_newer_spec_must_reach_the_ledger_also_after_failures() {
    let played = played(TOKEN).await;
    let ledger = Arc::new(Ledger::open(played.dir.path(), HOST).unwrap());
    *played.plane.failures.lock().unwrap() = 2;
    tokio::spawn(specs::follow(played.link.clone(), ledger.clone()));
    let mut specs = ledger.subscribe();
    for number in [1, 2, 7] {
        played.plane.spec.send_replace(spec(number));
        soon(specs.wait_for(|s| s.as_ref().is_some_and(|s| s.generation.number == number))).await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_token_must_leave_the_ledger_alone_and_be_said() {
    let played = played("berth_host_wrong").await;
    let error =
        played.link.send("GET spec", played.link.request(reqwest::Method::GET, "spec")).await.unwrap_err();
    assert!(error.to_string().contains("refused the host's token"), "{error}");
}

#[tokio::test]
async fn a_control_plane_that_is_not_there_must_be_named() {
    let link = Link::new("http://127.0.0.1:1", SecretString::from(TOKEN.to_owned())).unwrap();
    let error =
        link.send("GET spec", link.request(reqwest::Method::GET, "spec")).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1") && error.contains("D14"), "{error}");
}

#[tokio::test]
async fn a_change_must_be_reported_and_events_only_until_received() {
    let mut played = played(TOKEN).await;
    let ledger = Arc::new(Ledger::open(played.dir.path(), HOST).unwrap());
    let journal = Arc::new(Journal::open(played.dir.path(), "b").unwrap());
    let snapshots = watch::Sender::new(Arc::new(Snapshot::default()));
    let routes = watch::Sender::new(crate::routes::RoutesStatus::default());
    let sources = Sources {
        ledger: ledger.clone(),
        snapshots: snapshots.subscribe(),
        routes: routes.subscribe(),
        journal: journal.clone(),
        samples: Arc::new(NoSamples),
    };
    tokio::spawn(reports::send(played.link.clone(), sources));
    let first = soon(played.reports.recv()).await.unwrap();
    assert_eq!((first.generation, first.host.kernel.as_str()), (None, "played"));
    let happening = Happening {
        app: None,
        instance: None,
        process: "agent".into(),
        code: None,
        message: "something".into(),
        facts: std::collections::BTreeMap::new(),
    };
    journal.append(jiff::Timestamp::UNIX_EPOCH, happening);
    let second = soon(played.reports.recv()).await.unwrap();
    assert_eq!(second.events.len(), 1);
    ledger.accept(spec(3)).unwrap();
    let third = soon(played.reports.recv()).await.unwrap();
    assert_eq!(third.generation.map(|g| g.number), Some(3));
    assert!(third.events.is_empty(), "received once, sent again");
}

#[tokio::test]
async fn sessions_must_stream_logs_and_metrics() {
    let mut played = played(TOKEN).await;
    let app = AppId(Uuid::from_u128(5));
    let logs = played.dir.path().join("logs");
    let dir = crate::logs::name::app_dir(&logs, app);
    std::fs::create_dir_all(&dir).unwrap();
    let file = "web.1.01980000-0000-7000-8000-000000000001.log";
    std::fs::write(dir.join(file), "1000000 one\n2000000 two\n").unwrap();
    let logs = Places { instances: logs, access: played.dir.path().join("access.log") };
    tokio::spawn(sessions::answer(played.link.clone(), logs, Arc::new(NoSamples), Arc::new(NoCommands)));
    let (first, second) = (SessionId(Uuid::from_u128(11)), SessionId(Uuid::from_u128(12)));
    played.plane.sessions.lock().unwrap().extend([
        Session { id: first, request: SessionRequest::Metrics },
        Session {
            id: second,
            request: SessionRequest::Logs { app, process: None, lines: 10, follow: false },
        },
    ]);
    played.plane.opened.notify_one();
    let mut streams = std::collections::BTreeMap::new();
    for _ in 0..2 {
        let (id, body) = soon(played.streams.recv()).await.unwrap();
        streams.insert(id, body);
    }
    assert_eq!(&streams[&first.to_string()][..], b"up 1\n");
    let text = String::from_utf8(streams[&second.to_string()].to_vec()).unwrap();
    let lines: Vec<LogLine> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.iter().map(|l| l.text.as_str()).collect::<Vec<_>>(), ["one", "two"]);
}

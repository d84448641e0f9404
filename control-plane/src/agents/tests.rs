//! The agents' endpoints over the real router and store.

use axum::body::Body;
use berth_wire::id::HostId;
use berth_wire::spec::{Generation, Spec};
use http::{Request, StatusCode};
use tower::ServiceExt as _;

use crate::admin;
use crate::app::{App, Clock};
use crate::config::Config;
use crate::store::{hosts, specs};

struct World {
    app: App,
    host: HostId,
    secret: String,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let address = "127.0.0.1:1".parse().unwrap();
    let config =
        Config::new(dir.path(), address, "http://localhost:1", "http://localhost:2".parse().unwrap());
    let app = App::open(config, Clock::system()).await.unwrap();
    let (host, secret) = admin::host_add(&app.store, "h1", app.clock.now()).await.unwrap();
    World { app, host, secret, _dir: dir }
}

impl World {
    async fn get(&self, path: &str) -> (StatusCode, Vec<u8>) {
        self.send("GET", path, Body::empty()).await
    }

    async fn send(&self, method: &str, path: &str, body: Body) -> (StatusCode, Vec<u8>) {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {}", self.secret));
        let request = request.header("content-type", "application/json").body(body).unwrap();
        let answer = crate::router::router(self.app.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        (status, axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec())
    }

    async fn put_spec(&self, number: u64) {
        let generation = Generation { epoch: self.app.store.epoch(), number };
        let spec = Spec { host: self.host, generation, instances: vec![], routes: vec![] };
        let mut tx = self.app.store.begin().await.unwrap();
        specs::put(&self.app.store, &mut tx, &spec).await.unwrap();
        tx.commit().await.unwrap();
        self.app.wakes.changed();
    }
}

#[tokio::test]
async fn a_poll_must_be_answered_when_a_spec_is_written() {
    let world = world().await;
    assert_eq!(world.get("/agent/v1/spec").await.0, StatusCode::NO_CONTENT);
    world.put_spec(1).await;
    let (status, body) = world.get("/agent/v1/spec").await;
    assert_eq!(status, StatusCode::OK);
    let spec: Spec = serde_json::from_slice(&body).unwrap();
    let have = format!("/agent/v1/spec?epoch={}&after=1", spec.generation.epoch);
    assert_eq!(world.get(&have).await.0, StatusCode::NO_CONTENT);
    let waiting = format!("{have}&wait=20");
    let (polled, ()) = tokio::join!(world.get(&waiting), world.put_spec(2));
    let spec: Spec = serde_json::from_slice(&polled.1).unwrap();
    assert_eq!(spec.generation.number, 2);
    let other_epoch = world.get("/agent/v1/spec?epoch=5&after=2").await;
    assert_eq!(other_epoch.0, StatusCode::OK);
}

#[tokio::test]
async fn a_report_must_be_stored_under_the_tokens_host() {
    let world = world().await;
    let report = r#"{"generation":null,"instances":[],"edge":{"connected":true,"table":1,"serving":[]},
        "host":{"agent_version":"1","kernel":"6","cpu_millis":2000,"memory_bytes":5,"memory_available_bytes":4,
        "disk_bytes":3,"disk_available_bytes":2,"pids":1,"warnings":[]},"samples":[],"events":[
        {"number":7,"at":"2026-01-01T00:00:00Z","app":null,"instance":null,"process":"agent","code":null,"message":"m"}]}"#;
    let (status, body) = world.send("POST", "/agent/v1/report", Body::from(report)).await;
    assert_eq!(
        (status, String::from_utf8(body).unwrap().as_str()),
        (StatusCode::OK, r#"{"events_received":7}"#)
    );
    let stored = hosts::find(&mut world.app.store.read().await.unwrap(), world.host).await.unwrap().unwrap();
    assert!(stored.seen_at.is_some() && stored.edge.connected);
}

#[tokio::test]
async fn a_host_must_not_reach_builds_that_are_not_its_own() {
    let world = world().await;
    let digest = world.app.blobs.put(b"source").await.unwrap();
    assert_eq!(world.get(&format!("/agent/v1/sources/{digest}")).await.0, StatusCode::NOT_FOUND);
    let log = "/agent/v1/builds/0198c0de-0000-7000-8000-000000000001/log?offset=0";
    assert_eq!(world.send("POST", log, Body::from("x")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_api_token_must_not_open_the_agents_routes() {
    let mut world = world().await;
    world.secret = admin::token_create(&world.app.store, "t", world.app.clock.now()).await.unwrap();
    assert_eq!(world.get("/agent/v1/spec").await.0, StatusCode::UNAUTHORIZED);
}

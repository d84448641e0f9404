//! A control plane that answers from a script: just enough of the API, in its own types, to see what the command line makes
//! of it. Whether the real one answers so is tested end to end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, head, patch, post, put};
use axum::{Json, Router};
use berth_wire::digest::Digest;
use serde_json::{Value, json};

/// The only token it takes.
pub const TOKEN: &str = "berth_sample";

/// What it has been told and what it will say.
#[derive(Default)]
pub struct Script {
    /// Answers to `GET releases/N`, one after another; the last one stays.
    pub releases: Vec<Value>,
    /// Bodies that came, by path.
    pub received: BTreeMap<String, Vec<Vec<u8>>>,
    /// Blobs of the registry.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// What each connection that follows the log gets.
    pub followed: Vec<Vec<u32>>,
    /// What the build prints, in the pieces in which it comes; a line of its own if there are none.
    pub build_log: Vec<Vec<u8>>,
    /// How the build ends.
    pub build: Option<Value>,
}

/// The running fake.
pub struct Fake {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it says.
    pub script: Arc<Mutex<Script>>,
    _runtime: tokio::runtime::Runtime,
}

type Shared = Arc<Mutex<Script>>;

impl Fake {
    /// Starts it on a port of its own.
    pub fn start() -> Self {
        let script = Shared::default();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = routes(address).with_state(Arc::clone(&script));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, script, _runtime: runtime }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The newest body that came to a path.
    pub fn received(&self, path: &str) -> Vec<u8> {
        self.script.lock().unwrap().received.get(path).and_then(|all| all.last()).cloned().unwrap_or_default()
    }
}

/// A release that is at `status`.
pub fn release(status: &str, trouble: Value) -> Value {
    json!({
        "version": 2, "created_at": "2026-01-01T00:00:00Z", "description": "Set A", "by": "me", "status": status,
        "trouble": trouble, "commit": null, "build": null, "formation": [], "health": {},
        "image": {"repository": "apps/x", "digest": format!("sha256:{}", "0".repeat(64))},
    })
}

/// A problem document.
pub fn problem(status: u16, code: &str, detail: &str) -> Response {
    let body = json!({"type": format!("urn:berth:error:{code}"), "title": "", "status": status, "code": code, "detail": detail});
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::from_u16(status).unwrap(), kind, body.to_string()).into_response()
}

fn app(address: SocketAddr) -> Value {
    json!({
        "id": "01980000-0000-7000-8000-000000000001", "name": "shop", "created_at": "2026-01-01T00:00:00Z",
        "git_url": format!("http://{address}/git/shop.git"), "web_url": "http://shop.localhost:8080/",
        "domains": ["shop.localhost"], "release": 1, "rolling": null,
    })
}

fn routes(address: SocketAddr) -> Router<Shared> {
    let one = app(address);
    let (created, listed) = (one.clone(), json!([one.clone()]));
    Router::new()
        .route("/v1/account", get(|| async { Json(json!({"team": "01980000-0000-7000-8000-000000000002", "team_name": "default", "token_name": "me", "server_version": env!("CARGO_PKG_VERSION")})) }))
        .route("/v1/apps", get(|| async { Json(listed) }).post(|| async { Json(created) }))
        .route("/v1/apps/shop", get(|| async { Json(one) }).delete(|| async { StatusCode::NO_CONTENT }))
        .route("/v1/apps/{app}", get(|| async { problem(404, "A12", "There is no app of this name.") }))
        .route("/v1/apps/shop/config", patch(keep_change))
        .route("/v1/apps/shop/formation", patch(keep_change))
        .route("/v1/apps/shop/releases/2", get(next_release))
        .route("/v1/apps/shop/builds", post(keep_build))
        .route("/v1/apps/shop/builds/{id}", get(build))
        .route("/v1/apps/shop/builds/{id}/log", get(build_log))
        .route("/v1/apps/shop/logs", get(logs))
        .route("/v1/stacks/{name}", put(keep_stack))
        .route("/v2/stacks/{name}/blobs/{digest}", head(has_blob))
        .route("/v2/stacks/{name}/blobs/uploads/", post(|| async { (StatusCode::ACCEPTED, [(header::LOCATION, "/upload/1?state=x")]) }))
        .route("/upload/1", put(keep_blob))
        .route("/v2/stacks/{name}/manifests/{digest}", put(keep_manifest))
        .layer(middleware::from_fn(authorise))
}

async fn authorise(headers: HeaderMap, request: Request, next: Next) -> Response {
    let wanted = format!("Bearer {TOKEN}");
    if headers.get(header::AUTHORIZATION).is_some_and(|value| value == wanted.as_str()) {
        next.run(request).await
    } else {
        problem(401, "A10", "The token is not valid.")
    }
}

async fn keep_change(State(script): State<Shared>, request: Request) -> Response {
    keep(&script, request).await;
    (StatusCode::ACCEPTED, Json(json!({"release": 2, "message": "Set A."}))).into_response()
}

async fn keep(script: &Shared, request: Request) -> Bytes {
    let path = request.uri().path().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 24).await.unwrap_or_default();
    script.lock().unwrap().received.entry(path).or_default().push(body.to_vec());
    body
}

async fn next_release(State(script): State<Shared>) -> Json<Value> {
    let mut script = script.lock().unwrap();
    let answer = script.releases.first().cloned().unwrap_or_else(|| release("current", Value::Null));
    if script.releases.len() > 1 {
        script.releases.remove(0);
    }
    Json(answer)
}

fn a_build(status: &str) -> Value {
    json!({"id": "01980000-0000-7000-8000-000000000003", "created_at": "2026-01-01T00:00:00Z", "ended_at": null,
           "commit": null, "status": status, "trouble": null, "release": 2})
}

async fn keep_build(State(script): State<Shared>, request: Request) -> Json<Value> {
    keep(&script, request).await;
    Json(a_build("queued"))
}

async fn build(State(script): State<Shared>) -> Json<Value> {
    Json(script.lock().unwrap().build.clone().unwrap_or_else(|| a_build("succeeded")))
}

async fn build_log(State(script): State<Shared>) -> Body {
    let pieces = script.lock().unwrap().build_log.clone();
    if pieces.is_empty() {
        return Body::from("-----> Python app detected\n");
    }
    Body::from_stream(futures_util::stream::iter(pieces.into_iter().map(std::io::Result::Ok)))
}

/// The whole log for whoever does not follow; for a follower the scripted connections, each with the second of every line,
/// and then the app is gone.
async fn logs(State(script): State<Shared>, request: Request) -> Response {
    let line = |second: u32, text: &str| {
        let at = format!("2026-11-24T16:20:{second:02}.123456Z");
        format!("{}\n", json!({"at": at, "source": "app", "process": "web.1", "text": text}))
    };
    if !request.uri().query().unwrap_or_default().contains("follow=true") {
        return Body::from(line(0, "Listening") + &line(0, "Ünïcode")).into_response();
    }
    let mut script = script.lock().unwrap();
    if script.followed.is_empty() {
        return problem(404, "A12", "There is no app of this name.");
    }
    let seconds = script.followed.remove(0);
    Body::from(seconds.iter().map(|&second| line(second, &format!("line {second}"))).collect::<String>())
        .into_response()
}

async fn keep_stack(State(script): State<Shared>, Path(name): Path<String>, request: Request) -> Json<Value> {
    let body: Value = serde_json::from_slice(&keep(&script, request).await).unwrap_or_default();
    Json(json!({"name": name, "image": body["image"], "imported_at": "2026-01-01T00:00:00Z"}))
}

async fn has_blob(State(script): State<Shared>, Path((_, digest)): Path<(String, String)>) -> StatusCode {
    if script.lock().unwrap().blobs.contains_key(&digest) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn keep_blob(State(script): State<Shared>, request: Request) -> StatusCode {
    let query = request.uri().query().unwrap_or_default().replace("%3A", ":");
    let body = keep(&script, request).await;
    let digest = Digest::of(&body).to_string();
    if query != format!("state=x&digest={digest}") {
        return StatusCode::BAD_REQUEST;
    }
    script.lock().unwrap().blobs.insert(digest, body.to_vec());
    StatusCode::CREATED
}

async fn keep_manifest(
    State(script): State<Shared>,
    Path((_, digest)): Path<(String, String)>,
    request: Request,
) -> StatusCode {
    let body = keep(&script, request).await;
    let manifest: Value = serde_json::from_slice(&body).unwrap_or_default();
    let script = script.lock().unwrap();
    let known =
        |descriptor: &Value| script.blobs.contains_key(descriptor["digest"].as_str().unwrap_or_default());
    let complete = known(&manifest["config"]) && known(&manifest["layers"][0]);
    if complete && Digest::of(&body).to_string() == digest {
        StatusCode::CREATED
    } else {
        StatusCode::BAD_REQUEST
    }
}

//! A registry as the control plane's, as far as the agent uses it: in memory, and it logs what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use berth_wire::digest::Digest;
use http::StatusCode;

/// What the registry holds, and what was asked of it.
#[derive(Default)]
pub struct Held {
    pub blobs: HashMap<(String, String), Bytes>,
    manifests: HashMap<String, Bytes>,
    pub log: Vec<String>,
}

pub type Shared = Arc<Mutex<Held>>;

async fn blob(
    State(held): State<Shared>,
    UrlPath((a, b, digest)): UrlPath<(String, String, String)>,
) -> Response {
    find_blob(&held, format!("{a}/{b}"), digest)
}

async fn layers_blob(State(held): State<Shared>, UrlPath(digest): UrlPath<String>) -> Response {
    find_blob(&held, "layers".into(), digest)
}

fn find_blob(held: &Shared, repository: String, digest: String) -> Response {
    let mut held = held.lock().unwrap();
    held.log.push(format!("get {digest}"));
    held.blobs
        .get(&(repository, digest))
        .map_or(StatusCode::NOT_FOUND.into_response(), |bytes| bytes.clone().into_response())
}

async fn manifest(
    State(held): State<Shared>,
    UrlPath((_, _, digest)): UrlPath<(String, String, String)>,
) -> Response {
    let held = held.lock().unwrap();
    held.manifests
        .get(&digest)
        .map_or(StatusCode::NOT_FOUND.into_response(), |bytes| bytes.clone().into_response())
}

async fn put_manifest(
    State(held): State<Shared>,
    UrlPath((_, _, digest)): UrlPath<(String, String, String)>,
    body: Bytes,
) -> StatusCode {
    held.lock().unwrap().manifests.insert(digest, body);
    StatusCode::CREATED
}

fn open_upload(held: &Shared, repository: &str, query: &HashMap<String, String>) -> Response {
    if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from")) {
        let mut held = held.lock().unwrap();
        if let Some(bytes) = held.blobs.get(&(from.clone(), digest.clone())).cloned() {
            held.log.push(format!("mount {digest}"));
            held.blobs.insert((repository.to_owned(), digest.clone()), bytes);
            return StatusCode::CREATED.into_response();
        }
    }
    (StatusCode::ACCEPTED, [("location", format!("/v2/{repository}/blobs/uploads/1"))]).into_response()
}

fn finish_upload(
    held: &Shared,
    repository: &str,
    query: &HashMap<String, String>,
    body: Bytes,
) -> StatusCode {
    let digest = query.get("digest").unwrap().clone();
    if Digest::of(&body).as_str() != digest {
        return StatusCode::BAD_REQUEST;
    }
    let mut held = held.lock().unwrap();
    held.log.push(format!("upload {digest}"));
    held.blobs.insert((repository.to_owned(), digest), body);
    StatusCode::CREATED
}

type Asked = Query<HashMap<String, String>>;

pub fn routes(held: Shared) -> Router {
    let app_open = async |State(held): State<Shared>,
                          UrlPath((a, b)): UrlPath<(String, String)>,
                          Query(q): Asked| { open_upload(&held, &format!("{a}/{b}"), &q) };
    let app_finish =
        async |State(held): State<Shared>,
               UrlPath((a, b, _)): UrlPath<(String, String, String)>,
               Query(q): Asked,
               body: Bytes| finish_upload(&held, &format!("{a}/{b}"), &q, body);
    let layers_open = async |State(held): State<Shared>, Query(q): Asked| open_upload(&held, "layers", &q);
    let layers_finish = async |State(held): State<Shared>, Query(q): Asked, body: Bytes| {
        finish_upload(&held, "layers", &q, body)
    };
    Router::new()
        .route("/v2/{a}/{b}/blobs/{digest}", get(blob))
        .route("/v2/layers/blobs/{digest}", get(layers_blob))
        .route("/v2/{a}/{b}/manifests/{digest}", get(manifest).put(put_manifest))
        .route("/v2/{a}/{b}/blobs/uploads/", post(app_open))
        .route(
            "/v2/{a}/{b}/blobs/uploads/{id}",
            axum::routing::put(app_finish).delete(async || StatusCode::NO_CONTENT),
        )
        .route("/v2/layers/blobs/uploads/", post(layers_open))
        .route("/v2/layers/blobs/uploads/{id}", axum::routing::put(layers_finish))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(held)
}

//! The image registry: the endpoints of the OCI distribution specification 1.1 that pulling and pushing need
//! (end-1 to end-8b, end-11, end-13), over [`crate::blobs`]. Which caller may do what to which repository is in
//! `access.rs`; which repository holds what is kept as small files by `links.rs`, so that a blob is visible only
//! through a repository that it was pushed or mounted to.

mod access;
mod blob;
mod error;
pub mod links;
mod manifest;
pub mod path;
mod upload;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderMap, Method, StatusCode, header};

pub use access::{Access, access};
use error::{Refusal, RefusalCode};
use links::Links;
pub use path::Repository;
use path::Target;
use upload::Uploads;

use crate::access::Caller;
use crate::app::App;
use crate::blobs::Blobs;

/// The registry's state. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    blobs: Blobs,
    links: Links,
    uploads: Uploads,
}

impl Registry {
    /// A registry over these blobs.
    pub fn new(blobs: &Blobs) -> Self {
        Self { blobs: blobs.clone(), links: Links::new(blobs), uploads: Uploads::default() }
    }

    /// Which repository holds what.
    pub fn links(&self) -> &Links {
        &self.links
    }
}

/// `/v2/…`.
pub fn routes() -> Router<App> {
    Router::new().route("/v2/", any(version)).route("/v2/{*rest}", any(dispatch))
}

/// end-1: this is a registry. Whether the credential is good was decided before.
async fn version() -> impl IntoResponse {
    ([("docker-distribution-api-version", "registry/2.0")], "{}")
}

/// Repository names hold slashes, which a router's pattern cannot; the path is taken apart by `path.rs`.
async fn dispatch(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let registry = app.registry.clone();
    let rest = request.uri().path().strip_prefix("/v2/").unwrap_or_default().to_owned();
    let (repository, target) = path::parse(&rest)?;
    let head = Head::of(&request);
    let reading = matches!(head.method, Method::GET | Method::HEAD) && !matches!(target, Target::Upload(_));
    match allowed(&app, &caller, &repository).await? {
        Access::Nothing => return Err(Refusal::unknown_name(&repository)),
        Access::Read if !reading => return Err(Refusal::denied(&repository)),
        Access::Read | Access::Write => {}
    }
    if matches!(target, Target::Uploads)
        && head.method == Method::POST
        && let Some((digest, from)) = upload::mount_wish(&head)
        && allowed(&app, &caller, &from).await? != Access::Nothing
        && let Some(mounted) = upload::mount(&registry, &repository, &digest, &from).await?
    {
        return Ok(mounted);
    }
    serve(&registry, &repository, target, &head, request).await
}

async fn allowed(app: &App, caller: &Caller, repository: &Repository) -> Result<Access, Refusal> {
    let answer = async { access(&mut *app.store.read().await?, caller, repository).await };
    answer.await.map_err(|error: crate::store::StoreError| {
        tracing::error!(%error, "registry could not look up who may do what");
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            RefusalCode::Unknown,
            "the control plane failed; try again",
        )
    })
}

async fn serve(
    registry: &Registry,
    repository: &Repository,
    target: Target,
    head: &Head,
    request: Request,
) -> Result<Response, Refusal> {
    match (head.method.clone(), target) {
        (Method::GET | Method::HEAD, Target::Blob(digest)) => {
            blob::get(registry, repository, &digest, head).await
        }
        (Method::GET | Method::HEAD, Target::Manifest(reference)) => {
            manifest::get(registry, repository, &reference, head.method.clone()).await
        }
        (Method::PUT, Target::Manifest(reference)) => {
            manifest::put(registry, repository, &reference, request).await
        }
        (Method::GET, Target::Tags) => manifest::tags(registry, repository).await,
        (Method::POST, Target::Uploads) => upload::begin(registry, repository, request).await,
        (Method::PATCH, Target::Upload(id)) => upload::append(registry, repository, id, request).await,
        (Method::PUT, Target::Upload(id)) => upload::finish(registry, repository, id, request).await,
        (Method::GET, Target::Upload(id)) => upload::status(registry, repository, id).await,
        (Method::DELETE, Target::Upload(id)) => upload::cancel(registry, repository, id).await,
        (method, _) => Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            RefusalCode::Unsupported,
            format!(
                "{method} is not supported here: Berth removes images by itself when no release needs them"
            ),
        )),
    }
}

/// What is needed of a request beside its body: a body is not Sync, so a borrowed request cannot be kept while waiting.
struct Head {
    method: Method,
    headers: HeaderMap,
    query: String,
}

impl Head {
    fn of(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            headers: request.headers().clone(),
            query: request.uri().query().unwrap_or_default().to_owned(),
        }
    }

    /// The query's value for a key, percent-decoded.
    fn query(&self, key: &str) -> Option<String> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        percent_decoded(pairs.find(|(name, _)| *name == key)?.1)
    }
}

/// Only what registries' clients escape: `%3A` of a digest, `%2F` of a name.
fn percent_decoded(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(after.get(..2)?).ok()?, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// A 201 for something that now exists at `location`.
fn created(location: String, digest: &berth_wire::digest::Digest) -> Response {
    let headers = [
        (header::LOCATION, location),
        (header::HeaderName::from_static("docker-content-digest"), digest.to_string()),
        (header::CONTENT_LENGTH, "0".to_owned()),
    ];
    (StatusCode::CREATED, headers).into_response()
}

#[cfg(test)]
mod tests;

//! Manifests and tags: end-3, end-7, end-8. A manifest is stored only when everything it names is in the same
//! repository, so that an image that can be named can be pulled whole.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use berth_wire::digest::Digest;
use http::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::error::{Refusal, RefusalCode};
use super::links::Manifest;
use super::path::{Reference, Repository};
use super::{Registry, created};

/// The specification asks for at least 4 MiB.
const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// What is looked at in an image manifest or an index (image spec 1.1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    media_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
}

pub async fn get(
    registry: &Registry,
    repository: &Repository,
    reference: &Reference,
    method: Method,
) -> Result<Response, Refusal> {
    let unknown = || {
        let message = format!("{repository} has no manifest {reference}");
        Refusal::new(StatusCode::NOT_FOUND, RefusalCode::ManifestUnknown, message)
    };
    let found = registry.links.manifest(repository, reference).ok_or_else(unknown)?;
    let bytes = registry.blobs.read(&found.digest).await?.ok_or_else(unknown)?;
    let headers = [
        (header::CONTENT_TYPE, found.media_type),
        (header::CONTENT_LENGTH, bytes.len().to_string()),
        (header::HeaderName::from_static("docker-content-digest"), found.digest.to_string()),
    ];
    let body = if method == Method::HEAD { Body::empty() } else { Body::from(bytes) };
    Ok((headers, body).into_response())
}

pub async fn put(
    registry: &Registry,
    repository: &Repository,
    reference: &Reference,
    request: Request,
) -> Result<Response, Refusal> {
    let invalid =
        |message: String| Refusal::new(StatusCode::BAD_REQUEST, RefusalCode::ManifestInvalid, message);
    let sent_type =
        request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let bytes = to_bytes(request.into_body(), MANIFEST_BYTES_MAX).await.map_err(|_| {
        let message = format!("the manifest is larger than {MANIFEST_BYTES_MAX} bytes or was cut off");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, RefusalCode::SizeInvalid, message)
    })?;
    let contents: Contents = serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("not an image manifest or index: {error}")))?;
    let media_type = sent_type
        .or(contents.media_type)
        .ok_or_else(|| invalid("its media type is neither in Content-Type nor in the manifest".to_owned()))?;
    for descriptor in contents.config.iter().chain(&contents.layers) {
        if !registry.links.has_blob(repository, &descriptor.digest) {
            let message =
                format!("{repository} has no blob {}; push it before the manifest", descriptor.digest);
            return Err(Refusal::new(StatusCode::NOT_FOUND, RefusalCode::ManifestBlobUnknown, message));
        }
    }
    for child in &contents.manifests {
        if registry.links.manifest(repository, &Reference::Digest(child.digest.clone())).is_none() {
            let message = format!("{repository} has no manifest {}; push it before the index", child.digest);
            return Err(Refusal::new(StatusCode::NOT_FOUND, RefusalCode::ManifestBlobUnknown, message));
        }
    }
    let digest = Digest::of(&bytes);
    let tag = match reference {
        Reference::Digest(expected) if *expected != digest => {
            let message = format!("the manifest's digest is {digest}, not {expected}");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, RefusalCode::DigestInvalid, message));
        }
        Reference::Digest(_) => None,
        Reference::Tag(tag) => Some(tag.as_str()),
    };
    registry.blobs.put(&bytes).await?;
    registry.links.add_manifest(repository, &Manifest { digest: digest.clone(), media_type }, tag)?;
    Ok(created(format!("/v2/{repository}/manifests/{digest}"), &digest))
}

pub async fn tags(registry: &Registry, repository: &Repository) -> Result<Response, Refusal> {
    let body = json!({ "name": repository.to_string(), "tags": registry.links.tags(repository) });
    Ok(Json(body).into_response())
}

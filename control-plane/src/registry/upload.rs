//! Uploads of blobs: end-4 (POST, monolithic with a digest), end-5 (PATCH), end-6 (PUT), end-11 (mount), end-13.
//! The digest is computed while the bytes arrive. Uploads live in memory and in a temporary file: after a restart
//! of the control plane a client is told that its upload is unknown and begins again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use berth_wire::digest::Digest;
use futures_util::StreamExt as _;
use http::{HeaderName, StatusCode, header};
use uuid::Uuid;

use super::error::{Refusal, RefusalCode};
use super::path::Repository;
use super::{Head, Registry, created};
use crate::blobs::{BLOB_BYTES_MAX, Upload};

/// Most uploads at once: a push has a handful; each costs a file descriptor.
const UPLOADS_MAX: usize = 256;
/// An upload that was not touched for so long is forgotten.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// Uploads that are under way.
#[derive(Clone, Default)]
pub struct Uploads {
    open: Arc<Mutex<HashMap<Uuid, Open>>>,
}

struct Open {
    repository: Repository,
    touched: Instant,
    /// Taken out while a request writes to it, so that two cannot interleave.
    upload: Option<Upload>,
}

impl Uploads {
    fn insert(&self, repository: &Repository, upload: Upload) -> Result<Uuid, Refusal> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, one| one.upload.is_none() || one.touched.elapsed() < IDLE_MAX);
        if open.len() >= UPLOADS_MAX {
            let message = format!("{UPLOADS_MAX} uploads are under way; wait until one ends");
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, RefusalCode::TooManyRequests, message));
        }
        let id = Uuid::now_v7();
        open.insert(
            id,
            Open { repository: repository.clone(), touched: Instant::now(), upload: Some(upload) },
        );
        Ok(id)
    }

    fn take(&self, repository: &Repository, id: Uuid) -> Result<Taken, Refusal> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let one = open.get_mut(&id).filter(|one| one.repository == *repository).ok_or_else(|| {
            let message = format!("{repository} has no upload {id}; begin again with POST");
            Refusal::new(StatusCode::NOT_FOUND, RefusalCode::BlobUploadUnknown, message)
        })?;
        one.touched = Instant::now();
        let upload = one.upload.take().ok_or_else(|| {
            let message = format!("another request is writing to upload {id}");
            Refusal::new(StatusCode::CONFLICT, RefusalCode::BlobUploadInvalid, message)
        })?;
        Ok(Taken { uploads: self.clone(), id, upload: Some(upload) })
    }

    fn remove(&self, id: Uuid) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// An upload while a request works on it. Dropped (also when the client hangs up in the middle), it goes back with
/// the bytes that arrived, for the client to ask how many they were and go on.
struct Taken {
    uploads: Uploads,
    id: Uuid,
    upload: Option<Upload>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut open = self.uploads.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = open.get_mut(&self.id) {
            one.upload = self.upload.take();
            one.touched = Instant::now();
        }
    }
}

impl Taken {
    fn length(&self) -> u64 {
        self.upload.as_ref().map_or(0, Upload::length)
    }

    async fn write(&mut self, request: Request) -> Result<(), Refusal> {
        let Some(upload) = self.upload.as_mut() else { return Ok(()) };
        let written = write(upload, request).await;
        if written.is_err() && !matches!(&written, Err(refusal) if refusal.is_cut_off()) {
            // A full disk or too many bytes: what is there cannot be gone on from.
            self.upload = None;
            self.uploads.remove(self.id);
        }
        written
    }

    fn into_upload(mut self) -> Option<Upload> {
        self.uploads.remove(self.id);
        self.upload.take()
    }
}

async fn write(upload: &mut Upload, request: Request) -> Result<(), Refusal> {
    let mut body = request.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Refusal::cut_off(upload.length()))?;
        upload.write(&chunk).await?;
    }
    Ok(())
}

impl Refusal {
    fn cut_off(length: u64) -> Self {
        let message = format!("the upload was cut off after {length} bytes");
        Self::new(StatusCode::BAD_REQUEST, RefusalCode::BlobUploadInvalid, message)
    }

    fn is_cut_off(&self) -> bool {
        self.code() == RefusalCode::BlobUploadInvalid
    }
}

fn digest_of(head: &Head) -> Result<Option<Digest>, Refusal> {
    let Some(text) = head.query("digest") else { return Ok(None) };
    text.parse().map(Some).map_err(|error: berth_wire::digest::InvalidDigest| {
        Refusal::new(StatusCode::BAD_REQUEST, RefusalCode::DigestInvalid, error.to_string())
    })
}

pub async fn begin(
    registry: &Registry,
    repository: &Repository,
    request: Request,
) -> Result<Response, Refusal> {
    let head = Head::of(&request);
    let digest = digest_of(&head)?;
    let mut upload = registry.blobs.begin(BLOB_BYTES_MAX).await?;
    if let Some(digest) = digest {
        write(&mut upload, request).await?;
        return store(registry, repository, upload, &digest).await;
    }
    let id = registry.uploads.insert(repository, upload)?;
    Ok(progress(StatusCode::ACCEPTED, repository, id, 0))
}

/// Which blob of which other repository a POST asks to mount, if it does.
pub fn mount_wish(head: &Head) -> Option<(Digest, Repository)> {
    Some((head.query("mount")?.parse().ok()?, Repository::parse(&head.query("from")?)?))
}

/// end-11: the blob is made visible in this repository without being sent again. None if the other repository does
/// not hold it: the client then uploads. The caller may read the other one.
pub async fn mount(
    registry: &Registry,
    repository: &Repository,
    digest: &Digest,
    from: &Repository,
) -> Result<Option<Response>, Refusal> {
    if !registry.links.has_blob(from, digest) || registry.blobs.size(digest).await.is_none() {
        return Ok(None);
    }
    registry.links.add_blob(repository, digest)?;
    Ok(Some(created(format!("/v2/{repository}/blobs/{digest}"), digest)))
}

pub async fn append(
    registry: &Registry,
    repository: &Repository,
    id: Uuid,
    request: Request,
) -> Result<Response, Refusal> {
    let mut taken = registry.uploads.take(repository, id)?;
    check_start(&request, taken.length())?;
    taken.write(request).await?;
    Ok(progress(StatusCode::ACCEPTED, repository, id, taken.length()))
}

pub async fn finish(
    registry: &Registry,
    repository: &Repository,
    id: Uuid,
    request: Request,
) -> Result<Response, Refusal> {
    let digest = digest_of(&Head::of(&request))?.ok_or_else(|| {
        let message = "PUT needs ?digest=sha256:…, the digest of the whole blob";
        Refusal::new(StatusCode::BAD_REQUEST, RefusalCode::DigestInvalid, message)
    })?;
    let mut taken = registry.uploads.take(repository, id)?;
    check_start(&request, taken.length())?;
    taken.write(request).await?;
    match taken.into_upload() {
        Some(upload) => store(registry, repository, upload, &digest).await,
        None => Err(Refusal::cut_off(0)),
    }
}

pub async fn status(registry: &Registry, repository: &Repository, id: Uuid) -> Result<Response, Refusal> {
    let length = registry.uploads.take(repository, id)?.length();
    Ok(progress(StatusCode::NO_CONTENT, repository, id, length))
}

pub async fn cancel(registry: &Registry, repository: &Repository, id: Uuid) -> Result<Response, Refusal> {
    drop(registry.uploads.take(repository, id)?.into_upload());
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn store(
    registry: &Registry,
    repository: &Repository,
    upload: Upload,
    digest: &Digest,
) -> Result<Response, Refusal> {
    upload.finish(Some(digest)).await?;
    registry.links.add_blob(repository, digest)?;
    Ok(created(format!("/v2/{repository}/blobs/{digest}"), digest))
}

/// `Content-Range: FIRST-LAST` of a chunk must begin where the upload ends (distribution 1.1, Pushing a blob in chunks).
fn check_start(request: &Request, length: u64) -> Result<(), Refusal> {
    let Some(range) = request.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok())
    else {
        return Ok(());
    };
    let range = range.strip_prefix("bytes ").unwrap_or(range);
    let first = range.split_once('-').and_then(|(first, _)| first.parse::<u64>().ok());
    if first == Some(length) {
        return Ok(());
    }
    let message = format!("the chunk {range} does not begin at byte {length}, where this upload ends");
    Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, RefusalCode::BlobUploadInvalid, message))
}

fn progress(status: StatusCode, repository: &Repository, id: Uuid, length: u64) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/blobs/uploads/{id}")),
        (header::RANGE, format!("0-{}", length.saturating_sub(1))),
        (HeaderName::from_static("docker-upload-uuid"), id.to_string()),
        (header::CONTENT_LENGTH, "0".to_owned()),
    ];
    (status, headers).into_response()
}

//! Blobs as the registry's clients see them: end-2 (GET and HEAD), with a single byte range (RFC 9110 14.1.2) so
//! that an interrupted pull goes on.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use berth_wire::digest::Digest;
use http::{Method, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::error::{Refusal, RefusalCode};
use super::path::Repository;
use super::{Head, Registry};

/// Read buffer of a download: large enough that a system call costs less than the copy.
const CHUNK_BYTES: usize = 128 << 10;

pub async fn get(
    registry: &Registry,
    repository: &Repository,
    digest: &Digest,
    head: &Head,
) -> Result<Response, Refusal> {
    let unknown = || {
        let message = format!("{repository} has no blob {digest}");
        Refusal::new(StatusCode::NOT_FOUND, RefusalCode::BlobUnknown, message)
    };
    if !registry.links.has_blob(repository, digest) {
        return Err(unknown());
    }
    let (mut file, size) = registry.blobs.open_blob(digest).await?.ok_or_else(unknown)?;
    let range = head.headers.get(header::RANGE).and_then(|value| byte_range(value.to_str().ok()?, size));
    let (first, length) = range.unwrap_or((0, size));
    let mut response = if head.method == Method::HEAD {
        Body::empty().into_response()
    } else {
        file.seek(std::io::SeekFrom::Start(first)).await.map_err(|source| {
            let message = format!("could not read blob {digest}: {source}");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, RefusalCode::Unknown, message)
        })?;
        Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK_BYTES)).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, header::HeaderValue::from_static("bytes"));
    if let Ok(value) = digest.as_str().parse() {
        headers.insert("docker-content-digest", value);
    }
    if range.is_some() {
        let last = first + length.saturating_sub(1);
        if let Ok(value) = format!("bytes {first}-{last}/{size}").parse() {
            headers.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// `bytes=FIRST-LAST` or `bytes=FIRST-` as (first, length). Anything else, and what is out of bounds, is ignored
/// as RFC 9110 14.2 permits: the whole blob is sent.
fn byte_range(value: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let last = if last.is_empty() {
        size.checked_sub(1)?
    } else {
        last.parse::<u64>().ok()?.min(size.checked_sub(1)?)
    };
    (first <= last).then(|| (first, last - first + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_must_stay_inside_the_blob() {
        assert_eq!(byte_range("bytes=2-", 5), Some((2, 3)));
        assert_eq!(byte_range("bytes=0-99", 5), Some((0, 5)));
        assert_eq!(byte_range("bytes=5-", 5), None);
        assert_eq!(byte_range("bytes=0-1,3-4", 5), None);
        assert_eq!(byte_range("bytes=0-", 0), None);
    }
}

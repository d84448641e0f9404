//! The registry over HTTP (OCI distribution 1.1), one function per endpoint used. Digests are checked by callers that stream
//! and here for what fits in memory.

use std::time::Duration;

use berth_wire::digest::Digest;
use futures_util::TryStreamExt as _;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Client, RequestBuilder, Response, Url};
use secrecy::ExposeSecret as _;
use tokio::io::AsyncRead;

use super::{ImageError, Registry};

/// OCI distribution 1.1 asks registries to take manifests of 4 MiB at least; configurations are smaller.
pub(super) const DOCUMENT_BYTES_MAX: usize = 4 << 20;

/// A client without proxies or redirects: the registry is the control plane, and the token is for it only.
pub(super) fn client() -> Result<Client, ImageError> {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(60))
        .build()
        .map_err(|source| ImageError::Unreachable { url: "HTTP client".into(), source })
}

/// One repository of the registry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repository<'a> {
    pub http: &'a Client,
    pub registry: &'a Registry,
    pub name: &'a str,
}

impl Repository<'_> {
    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.registry.base_url.trim_end_matches('/'), self.name)
    }

    async fn send(&self, request: RequestBuilder, url: &str) -> Result<Response, ImageError> {
        let request = request.bearer_auth(self.registry.token.expose_secret());
        request.send().await.map_err(|source| ImageError::Unreachable { url: url.to_owned(), source })
    }

    fn expect(response: Response, url: &str, wanted: &[StatusCode]) -> Result<Response, ImageError> {
        let status = response.status();
        if wanted.contains(&status) {
            Ok(response)
        } else {
            Err(ImageError::Answer { url: url.to_owned(), status: status.as_u16() })
        }
    }

    /// end-3: a manifest or index.
    pub(super) async fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
             application/vnd.docker.distribution.manifest.v2+json, \
             application/vnd.docker.distribution.manifest.list.v2+json";
        let url = self.url(&format!("manifests/{digest}"));
        let response = self.send(self.http.get(&url).header(http::header::ACCEPT, ACCEPT), &url).await?;
        self.document(Self::expect(response, &url, &[StatusCode::OK])?, "manifest", digest, url).await
    }

    /// end-2: a small blob, whole.
    pub(super) async fn small_blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let url = self.url(&format!("blobs/{digest}"));
        let response = self.send(self.http.get(&url), &url).await?;
        self.document(Self::expect(response, &url, &[StatusCode::OK])?, "configuration", digest, url).await
    }

    async fn document(
        &self,
        mut response: Response,
        what: &'static str,
        wanted: &Digest,
        url: String,
    ) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let unreachable = |source| ImageError::Unreachable { url: url.clone(), source };
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > DOCUMENT_BYTES_MAX {
                let reason = format!("it has more than {DOCUMENT_BYTES_MAX} bytes");
                return Err(ImageError::Malformed { what, of: wanted.to_string(), reason });
            }
        }
        let found = Digest::of(&bytes);
        if found == *wanted {
            Ok(bytes)
        } else {
            Err(ImageError::Digest { what, wanted: wanted.clone(), found })
        }
    }

    /// end-2: a blob as it comes.
    pub(super) async fn blob(
        &self,
        digest: &Digest,
    ) -> Result<impl AsyncRead + Send + Unpin + use<>, ImageError> {
        let url = self.url(&format!("blobs/{digest}"));
        let response = self.send(self.http.get(&url), &url).await?;
        let response = Self::expect(response, &url, &[StatusCode::OK])?;
        Ok(tokio_util::io::StreamReader::new(response.bytes_stream().map_err(std::io::Error::other)))
    }

    /// end-2: whether the repository has a blob.
    pub(super) async fn has_blob(&self, digest: &Digest) -> Result<bool, ImageError> {
        let url = self.url(&format!("blobs/{digest}"));
        let response = self.send(self.http.head(&url), &url).await?;
        let response = Self::expect(response, &url, &[StatusCode::OK, StatusCode::NOT_FOUND])?;
        Ok(response.status() == StatusCode::OK)
    }

    /// end-11: takes a blob over from another repository, if that has it.
    pub(super) async fn mount(&self, digest: &Digest, from: &str) -> Result<bool, ImageError> {
        let url = self.url(&format!("blobs/uploads/?mount={digest}&from={from}"));
        let response = self.send(self.http.post(&url).header(CONTENT_LENGTH, 0), &url).await?;
        let response = Self::expect(response, &url, &[StatusCode::CREATED, StatusCode::ACCEPTED])?;
        if response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        // It opened an upload instead; end-13 takes that back, and an idle one ends by itself.
        if let Ok(location) = self.location(&response, &url) {
            let _ = self.send(self.http.delete(location.clone()), location.as_str()).await;
        }
        Ok(false)
    }

    fn location(&self, response: &Response, url: &str) -> Result<Url, ImageError> {
        let malformed = |reason: &str| ImageError::Malformed {
            what: "upload location",
            of: url.to_owned(),
            reason: reason.to_owned(),
        };
        let text = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let base = Url::parse(url).map_err(|error| malformed(&error.to_string()))?;
        let location =
            base.join(text.ok_or_else(|| malformed("none"))?).map_err(|e| malformed(&e.to_string()))?;
        // The token goes with the next request.
        if location.origin() == base.origin() {
            Ok(location)
        } else {
            Err(malformed("it is on another server"))
        }
    }

    /// end-4 and end-6: uploads a blob.
    pub(super) async fn upload(
        &self,
        digest: &Digest,
        size: u64,
        body: reqwest::Body,
    ) -> Result<(), ImageError> {
        let url = self.url("blobs/uploads/");
        let opened = self.send(self.http.post(&url).header(CONTENT_LENGTH, 0), &url).await?;
        let mut location = self.location(&Self::expect(opened, &url, &[StatusCode::ACCEPTED])?, &url)?;
        location.query_pairs_mut().append_pair("digest", digest.as_str());
        let request = self
            .http
            .put(location.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, size)
            .body(body);
        let done = self.send(request, location.as_str()).await?;
        Self::expect(done, location.as_str(), &[StatusCode::CREATED]).map(drop)
    }

    /// end-7: a manifest under its digest.
    pub(super) async fn put_manifest(
        &self,
        digest: &Digest,
        kind: &str,
        bytes: Vec<u8>,
    ) -> Result<(), ImageError> {
        let url = self.url(&format!("manifests/{digest}"));
        let response = self.send(self.http.put(&url).header(CONTENT_TYPE, kind).body(bytes), &url).await?;
        Self::expect(response, &url, &[StatusCode::CREATED]).map(drop)
    }
}

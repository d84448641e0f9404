//! The registry's error bodies (distribution 1.1, Error Codes) and their HTTP statuses: nowhere else are they made.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::path::Repository;
use crate::blobs::BlobError;

/// The codes of the specification that Berth uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Denied,
    Unsupported,
    TooManyRequests,
    Unknown,
}

impl RefusalCode {
    fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A request that was refused.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    code: RefusalCode,
    message: String,
}

impl Refusal {
    pub fn new(status: StatusCode, code: RefusalCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub fn code(&self) -> RefusalCode {
        self.code
    }

    pub fn denied(repository: &Repository) -> Self {
        let message = format!("this token may pull from {repository} but not push to it");
        Self::new(StatusCode::FORBIDDEN, RefusalCode::Denied, message)
    }

    pub fn unknown_name(repository: &Repository) -> Self {
        let message = format!("no repository {repository} that this token may see");
        Self::new(StatusCode::NOT_FOUND, RefusalCode::NameUnknown, message)
    }
}

impl From<BlobError> for Refusal {
    fn from(error: BlobError) -> Self {
        match &error {
            BlobError::Mismatch { .. } => {
                Self::new(StatusCode::BAD_REQUEST, RefusalCode::DigestInvalid, error.to_string())
            }
            BlobError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, RefusalCode::SizeInvalid, error.to_string())
            }
            BlobError::Io { .. } => {
                tracing::error!(%error, "registry blob failed");
                let status = if error.is_disk_full() {
                    StatusCode::INSUFFICIENT_STORAGE
                } else {
                    StatusCode::INTERNAL_SERVER_ERROR
                };
                Self::new(status, RefusalCode::Unknown, error.to_string())
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(json!({ "errors": [{ "code": self.code.as_str(), "message": self.message }] }));
        (self.status, body).into_response()
    }
}

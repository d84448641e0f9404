//! Errors, in three tiers. (1) `domain` and `store` have their own types, which know nothing of HTTP. (2) A handler's
//! error is [`ApiError`]: a stable code and a sentence. (3) Here, and only here, a code becomes a status and an RFC 9457
//! body. What the caller cannot help (A99) is logged here, once, and its reason kept from the caller.

use axum::response::{IntoResponse, Response};
use berth_wire::api::Problem;
use berth_wire::code::Code;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use crate::domain::formation::InvalidFormation;
use crate::domain::release::InvalidConfig;
use crate::store::StoreError;
use crate::store::seal::SealError;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} {detail}")]
pub struct ApiError {
    /// The stable code.
    pub code: Code,
    /// What was tried, on what, and what to do.
    pub detail: String,
    /// Last log lines, where there are some.
    pub log_tail: Vec<String>,
}

impl ApiError {
    /// An error with a code and a sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), log_tail: Vec::new() }
    }

    /// What the caller cannot help. The reason goes to the log.
    pub fn internal(reason: &dyn std::fmt::Display) -> Self {
        tracing::error!(%reason, "request failed");
        Self::new(Code::A99, "the control plane failed; its log says why. Trying again is safe")
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        status_of(self.code)
    }
}

/// The HTTP status of a code.
pub fn status_of(code: Code) -> StatusCode {
    match code {
        Code::A10 => StatusCode::UNAUTHORIZED,
        Code::A11 => StatusCode::FORBIDDEN,
        Code::A12 => StatusCode::NOT_FOUND,
        Code::A14 | Code::A15 | Code::A16 | Code::G11 | Code::R25 => StatusCode::CONFLICT,
        Code::A21 => StatusCode::BAD_REQUEST,
        Code::A22 => StatusCode::METHOD_NOT_ALLOWED,
        Code::A18 | Code::B22 | Code::G12 => StatusCode::PAYLOAD_TOO_LARGE,
        Code::A19 | Code::A20 | Code::R24 => StatusCode::SERVICE_UNAVAILABLE,
        Code::D13 => StatusCode::INSUFFICIENT_STORAGE,
        Code::A99 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl IntoResponse for &ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let problem = Problem {
            kind: format!("urn:berth:error:{}", self.code),
            title: self.code.title().to_owned(),
            status: status.as_u16(),
            code: self.code,
            detail: self.detail.clone(),
            log_tail: self.log_tail.clone(),
        };
        let mut response = (status, axum::Json(problem)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (&self).into_response()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if let StoreError::Sqlite(sqlx::Error::Database(e)) = &error
            && e.code().as_deref() == Some(SQLITE_FULL)
        {
            tracing::error!(reason = %error, "the disk is full");
            return Self::new(
                Code::D13,
                "the control plane's disk is full: nothing was changed. Free some space there",
            );
        }
        Self::internal(&error)
    }
}

/// SQLite's result code for a full disk (sqlite.org/rescode.html).
const SQLITE_FULL: &str = "13";

impl From<SealError> for ApiError {
    fn from(error: SealError) -> Self {
        Self::internal(&error)
    }
}

impl From<InvalidFormation> for ApiError {
    fn from(error: InvalidFormation) -> Self {
        Self::new(Code::A13, error.to_string())
    }
}

impl From<InvalidConfig> for ApiError {
    fn from(error: InvalidConfig) -> Self {
        Self::new(Code::A13, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_internal_error_must_keep_its_reason_to_itself() {
        let error = ApiError::from(StoreError::Corrupt { what: "x", why: "hunter2".into() });
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let response = error.into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!((problem.code, problem.kind.as_str()), (Code::A99, "urn:berth:error:A99"));
        assert!(!problem.detail.contains("hunter2"));
    }
}

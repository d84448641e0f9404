//! Arguments of handlers whose refusal is a problem document, and the look-up of the app that a path names.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use berth_wire::code::Code;
use berth_wire::name::AppName;
use http::request::Parts;
use serde::de::DeserializeOwned;
use sqlx::SqliteConnection;

use super::problem::ApiError;
use crate::store::apps::{self, AppRow};
use crate::store::tokens::Bearer;

/// A JSON body.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(JsonRejection::BytesRejection(e)) if e.status() == http::StatusCode::PAYLOAD_TOO_LARGE => {
                Err(ApiError::new(Code::A18, "the request's body is too large"))
            }
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(ApiError::new(Code::A13, "the body must be JSON, with content-type: application/json"))
            }
            Err(e) => {
                let text = e.body_text();
                let reason = text.rsplit_once(AXUM_SAYS).map_or(text.as_str(), |(_, reason)| reason);
                Err(ApiError::new(Code::A13, format!("the body cannot be used: {reason}")))
            }
        }
    }
}

/// What axum puts before serde's own sentence.
const AXUM_SAYS: &str = "into the target type: ";

/// What axum puts before the reason why a query cannot be used.
const AXUM_SAYS_OF_A_QUERY: &str = "Failed to deserialize query string: ";

/// The parts of a path.
#[derive(Debug, Clone)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            // Whatever has no valid name cannot exist.
            Err(e) => {
                Err(ApiError::new(Code::A12, format!("nothing has such an address: {}", e.body_text())))
            }
        }
    }
}

/// The query.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(e) => {
                // axum's sentence ends in "NAME: why".
                let text = e.body_text();
                let reason = text.strip_prefix(AXUM_SAYS_OF_A_QUERY).unwrap_or(&text);
                Err(ApiError::new(Code::A21, format!("the parameter cannot be used: {reason}")))
            }
        }
    }
}

/// The caller's app of that name. Another team's does not exist.
///
/// # Errors
/// A12, or the store failed.
pub async fn find_app(
    conn: &mut SqliteConnection,
    caller: &Bearer,
    name: &AppName,
) -> Result<AppRow, ApiError> {
    apps::find(conn, caller.team, name)
        .await?
        .ok_or_else(|| ApiError::new(Code::A12, format!("there is no app {name}; `berth apps` lists yours")))
}

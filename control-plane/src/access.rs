//! Who may do what: decided here and nowhere else, deny by default. A request's *matched* route (not its text) is
//! looked up in [`TABLE`]; a route that is not in it is refused. What an object's team allows is decided where the
//! object is looked up: through the caller's team, so that another team's object does not exist.

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use berth_wire::code::Code;
use berth_wire::id::HostId;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use crate::api::problem::ApiError;
use crate::app::App;
use crate::store::tokens::Bearer;
use crate::store::{hosts, tokens};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// An API token.
    Api,
    /// A host's token.
    Host,
    /// An API token or a host's, also as a Basic password: image clients and agents.
    Registry,
    /// An API token as a Basic password: git.
    Git,
}

/// Every route there is, by the longest prefix of its pattern that matches.
pub const TABLE: &[(&str, Access)] = &[
    ("/healthz", Access::Public),
    ("/v1/openapi.json", Access::Public),
    ("/metrics", Access::Api),
    ("/v1/", Access::Api),
    ("/agent/v1/", Access::Host),
    ("/v2/", Access::Registry),
    ("/git/", Access::Git),
];

/// Who is calling, as an extension of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Somebody with an API token.
    Api(Bearer),
    /// A host.
    Host(HostId),
}

/// Somebody with an API token, as an argument of a handler.
#[derive(Debug, Clone)]
pub struct ApiCaller(pub Bearer);

/// A host, as an argument of a handler.
#[derive(Debug, Clone, Copy)]
pub struct HostCaller(pub HostId);

/// Who may use the route with this pattern; none: nobody.
pub fn access_of(pattern: &str) -> Option<Access> {
    TABLE
        .iter()
        .filter(
            |(prefix, _)| {
                if prefix.ends_with('/') { pattern.starts_with(prefix) } else { pattern == *prefix }
            },
        )
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|(_, access)| *access)
}

/// The layer around every route.
pub async fn authorise(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let access = request.extensions().get::<MatchedPath>().and_then(|path| access_of(path.as_str()));
    let Some(access) = access else {
        return ApiError::new(Code::A11, "this route is open to nobody").into_response();
    };
    if access != Access::Public {
        match identify(&app, access, request.headers()).await {
            Ok(caller) => request.extensions_mut().insert(caller),
            Err(error) => return challenge(access, &error),
        };
    }
    next.run(request).await
}

async fn identify(app: &App, access: Access, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let secret = secret_of(access, headers).ok_or_else(|| {
        ApiError::new(Code::A10, "no token was sent; run `berth login`, or set BERTH_TOKEN")
    })?;
    let mut conn = app.store.read().await?;
    let host_allowed = matches!(access, Access::Host | Access::Registry);
    if host_allowed && let Some(host) = hosts::find_by_secret(&mut conn, &secret).await? {
        return Ok(Caller::Host(host));
    }
    if access != Access::Host
        && let Some(bearer) = tokens::find_by_secret(&mut conn, &secret).await?
    {
        drop(conn);
        mark_used(app, &bearer).await?;
        return Ok(Caller::Api(bearer));
    }
    let whose = if access == Access::Host { "host's token" } else { "token" };
    Err(ApiError::new(Code::A10, format!("the {whose} is not known here; it may have been deleted")))
}

/// To the minute, so that a busy client does not make every request a write.
async fn mark_used(app: &App, bearer: &Bearer) -> Result<(), ApiError> {
    let now = app.clock.now();
    if bearer.used_at.is_some_and(|at| now.duration_since(at).as_secs() < 60) {
        return Ok(());
    }
    let mut tx = app.store.begin().await?;
    tokens::mark_used(&mut tx, bearer.id, now).await?;
    tx.commit().await.map_err(crate::store::StoreError::from)?;
    Ok(())
}

fn secret_of(access: Access, headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    // RFC 9110 11.1: the scheme is case-insensitive.
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let basic = scheme.eq_ignore_ascii_case("basic") && matches!(access, Access::Registry | Access::Git);
    if !basic {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

fn challenge(access: Access, error: &ApiError) -> Response {
    let mut response = error.into_response();
    if error.code == Code::A10 {
        let scheme = match access {
            Access::Registry | Access::Git => r#"Basic realm="berth""#,
            _ => r#"Bearer realm="berth""#,
        };
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
    }
    response
}

impl<S: Sync> FromRequestParts<S> for ApiCaller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match parts.extensions.get::<Caller>() {
            Some(Caller::Api(bearer)) => Ok(Self(bearer.clone())),
            _ => Err(ApiError::new(Code::A11, "this needs an API token")),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for HostCaller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match parts.extensions.get::<Caller>() {
            Some(Caller::Host(host)) => Ok(Self(*host)),
            _ => Err(ApiError::new(Code::A11, "this needs a host's token")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_is_not_in_the_table_must_be_open_to_nobody() {
        assert_eq!(access_of("/v1/apps/{app}"), Some(Access::Api));
        assert_eq!(access_of("/v1/openapi.json"), Some(Access::Public));
        assert_eq!(access_of("/git/{*path}"), Some(Access::Git));
        for closed in ["/", "/v1", "/healthz/x", "/agent", "/debug", "/v3/"] {
            assert_eq!(access_of(closed), None, "{closed}");
        }
    }
}

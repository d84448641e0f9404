//! Serves `/metrics` over HTTP, with a bearer token if the operator wants one.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

use crate::link::sessions::Scrape;

/// Prometheus' text format 0.0.4.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Shared<S> {
    metrics: Arc<S>,
    token: Option<SecretString>,
}

/// Writes the listener's actual address to `address_file`, for whoever configured port 0.
///
/// # Errors
/// The file cannot be written.
pub fn announce(listener: &TcpListener, address_file: &Path) -> std::io::Result<()> {
    let staged = address_file.with_extension("new");
    std::fs::write(&staged, format!("{}\n", listener.local_addr()?))?;
    std::fs::rename(staged, address_file)
}

/// Serves for ever.
///
/// # Errors
/// The listener failed.
pub async fn serve<S: Scrape>(
    listener: TcpListener,
    metrics: Arc<S>,
    token: Option<SecretString>,
) -> std::io::Result<()> {
    let app =
        Router::new().route("/metrics", get(answer::<S>)).with_state(Arc::new(Shared { metrics, token }));
    axum::serve(listener, app).await
}

async fn answer<S: Scrape>(State(shared): State<Arc<Shared<S>>>, headers: HeaderMap) -> Response {
    if let Some(token) = &shared.token
        && !is_allowed(&headers, token)
    {
        let say = "This needs the bearer token of the agent's metrics_token_file\n";
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], say).into_response();
    }
    ([(CONTENT_TYPE, TEXT)], shared.metrics.scrape().await).into_response()
}

/// Compares in time that depends on the length only.
fn is_allowed(headers: &HeaderMap, token: &SecretString) -> bool {
    let given =
        headers.get(AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer ")).unwrap_or_default();
    bool::from(given.ct_eq(token.expose_secret().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Scrape for Fixed {
        async fn scrape(&self) -> String {
            "x 1\n".to_owned()
        }
    }

    async fn serving(token: Option<&str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        let token = token.map(|t| SecretString::from(t.to_owned()));
        tokio::spawn(serve(listener, Arc::new(Fixed), token));
        url
    }

    #[tokio::test]
    async fn metrics_must_be_text_of_prometheus() {
        let answer = reqwest::get(serving(None).await).await.unwrap();
        assert_eq!(answer.headers()["content-type"], TEXT);
        assert_eq!(answer.text().await.unwrap(), "x 1\n");
    }

    #[tokio::test]
    async fn a_token_must_be_demanded_where_there_is_one() {
        let url = serving(Some("secret")).await;
        let client = reqwest::Client::new();
        for (given, status) in
            [(None, 401), (Some("wrong"), 401), (Some("secre"), 401), (Some("secret"), 200)]
        {
            let mut request = client.get(&url);
            if let Some(given) = given {
                request = request.bearer_auth(given);
            }
            assert_eq!(request.send().await.unwrap().status(), status, "{given:?}");
        }
    }
}

//! HTTP to the control plane: one request, one typed answer or one [`Failure`]. What to ask for is up to the
//! commands.

use std::time::Duration;

use berth_wire::api::Problem;
use berth_wire::attach::PROTOCOL;
use berth_wire::code::Code;
use reqwest::header::{CONNECTION, UPGRADE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Exit, Failure};

/// Time for a connection. Answers have no limit of their own: some are awaited, some are followed for hours.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Most of an error's body that is read as text when it is no problem document.
const ERROR_TEXT_CHARS_MAX: usize = 300;

/// A control plane and the token to use there.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl Client {
    /// For the control plane at `base`.
    ///
    /// # Errors
    /// The TLS stack could not be set up.
    pub fn new(base: Url, token: Option<String>) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&base) {
            // A proxy cannot know this machine's loopback.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| Failure::local("setting up HTTP", e))?;
        Ok(Self { http, base, token })
    }

    /// Where it talks to.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// A request to an absolute path (or a whole URL on the same server, as a registry answers in `Location`).
    ///
    /// # Errors
    /// The path cannot be joined to the base, or leads to another server, which must not see the token.
    pub fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Failure> {
        let url =
            self.base.join(path).map_err(|e| Failure::local(format!("reading {path:?} as a URL"), e))?;
        if url.origin() != self.base.origin() {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "{} answered with an address on another server, {url}; it was not followed",
                    self.base
                ),
            ));
        }
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(request)
    }

    /// Sends a request; an answer that is no success is a failure.
    ///
    /// # Errors
    /// Not reachable, or refused by the control plane.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// GET, JSON.
    ///
    /// # Errors
    /// As [`Client::send`], or the answer is not what the API promises.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self.send(self.request(Method::GET, path)?).await?;
        self.json(response).await
    }

    /// A JSON body, a JSON answer.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn call<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        let response = self.send(self.request(method, path)?.json(body)).await?;
        self.json(response).await
    }

    /// A JSON body; the connection then belongs to an attached command.
    ///
    /// # Errors
    /// As [`Client::send`], or the control plane (or a proxy before it) does not hand the connection over.
    pub async fn upgrade<B: Serialize + ?Sized>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<reqwest::Upgraded, Failure> {
        let request = self.request(method, path)?.header(CONNECTION, "upgrade").header(UPGRADE, PROTOCOL);
        let response = request.json(body).send().await.map_err(|error| self.unreachable(&error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(response).await);
        }
        response.upgrade().await.map_err(|error| self.unreachable(&error))
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(self.request(Method::DELETE, path)?).await.map(|_| ())
    }

    /// The JSON of an answer.
    ///
    /// # Errors
    /// The connection broke, or the body is something else.
    pub async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, Failure> {
        let path = response.url().path().to_owned();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!(
                    "{} answered {path} with something else than expected ({error}). \
                     Is it a Berth control plane of this version? `berth doctor` compares them",
                    self.base
                ),
            )
        })
    }

    /// A connection that did not come about, or broke.
    pub fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::new(
            Exit::Unreachable,
            format!(
                "{} could not be reached: {}. Check that the control plane runs and that the address is right",
                self.base,
                innermost(error)
            ),
        )
        .with_code(Code::D14)
    }

    async fn refusal(&self, response: Response) -> Failure {
        let (status, path) = (response.status(), response.url().path().to_owned());
        let text = response.text().await.unwrap_or_default();
        if let Ok(problem) = serde_json::from_str::<Problem>(&text) {
            return problem.into();
        }
        let exit = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Refused,
            StatusCode::NOT_FOUND => Exit::NotFound,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Exit::Unreachable
            }
            _ => Exit::Failed,
        };
        let text: String = text.trim().chars().take(ERROR_TEXT_CHARS_MAX).collect();
        let text = if text.is_empty() { "Is it a Berth control plane of this version?" } else { &text };
        Failure::new(exit, format!("{} answered {path} with {status}. {text}", self.base))
    }
}

/// The cause that says most: reqwest's own sentence only repeats the URL.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        host == "localhost"
            || host.ends_with(".localhost")
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_must_not_go_through_a_proxy() {
        for (url, loopback) in [
            ("http://127.0.0.1:8400", true),
            ("http://[::1]:8400", true),
            ("http://localhost", true),
            ("https://berth.example", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), loopback, "{url}");
        }
    }

    #[test]
    fn the_token_must_not_go_to_another_server() {
        let client = Client::new("http://127.0.0.1:1".parse().unwrap(), Some("secret".into())).unwrap();
        assert!(client.request(Method::GET, "/v1/apps").is_ok());
        assert!(client.request(Method::GET, "http://evil.example/v2/").is_err());
    }
}

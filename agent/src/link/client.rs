//! Requests to the control plane with the host's token, and the pause between attempts that fail.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};

/// How long a long poll waits at the control plane.
pub const WAIT: Duration = Duration::from_secs(25);

/// Longer than [`WAIT`] by a slow answer: what is silent for longer is dead.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Of an error's body that is shown.
const ERROR_CHARS_MAX: usize = 300;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No answer.
    #[error("the control plane at {url} did not answer: {reason} (D14); containers and traffic go on")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// It knows no such host.
    #[error(
        "the control plane refused the host's token ({0}); is it the one that `berthd host add` printed?"
    )]
    Refused(StatusCode),
    /// Another answer than was asked for.
    #[error("the control plane answered {what} with {status}: {body}")]
    Unexpected {
        /// What was asked.
        what: &'static str,
        /// The status.
        status: StatusCode,
        /// The beginning of what it said.
        body: String,
    },
    /// A body that cannot be understood.
    #[error("could not understand the control plane's answer to {what}: {source}")]
    Body {
        /// What was asked.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

/// A client of the control plane. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    base: String,
    client: Client,
    token: SecretString,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Link {
    /// A client for the control plane at `base`.
    ///
    /// # Errors
    /// The TLS roots cannot be loaded.
    pub fn new(base: &str, token: SecretString) -> reqwest::Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_MAX)
            .user_agent(concat!("berth-agent/", env!("CARGO_PKG_VERSION")))
            // A proxy of root's environment is not the way to the control plane.
            .no_proxy()
            .build()?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), client, token })
    }

    /// A request under `/agent/v1`, with the token and without a limit on its time.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/agent/v1/{path}", self.base);
        self.client.request(method, url).bearer_auth(self.token.expose_secret())
    }

    /// Sends a request that is answered within the long poll's time.
    ///
    /// # Errors
    /// No answer, a refused token, or a status that is no success.
    pub async fn send(&self, what: &'static str, request: RequestBuilder) -> Result<Response, LinkError> {
        let answer = request.timeout(ANSWER_MAX).send().await.map_err(|e| self.unreachable(&e))?;
        self.accepted(what, answer).await
    }

    /// Checks an answer's status.
    ///
    /// # Errors
    /// A refused token or a status that is no success.
    pub async fn accepted(&self, what: &'static str, answer: Response) -> Result<Response, LinkError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(LinkError::Refused(status));
        }
        let body = answer.text().await.unwrap_or_default().chars().take(ERROR_CHARS_MAX).collect();
        Err(LinkError::Unexpected { what, status, body })
    }

    /// The body of an answer, at most `bytes_max` long.
    ///
    /// # Errors
    /// It breaks off, is longer, or is not the JSON that was expected.
    pub async fn json<T: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        mut answer: Response,
        bytes_max: usize,
    ) -> Result<T, LinkError> {
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.unreachable(&e))? {
            if body.len() + chunk.len() > bytes_max {
                let body = format!("a body of more than {bytes_max} bytes");
                return Err(LinkError::Unexpected { what, status, body });
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|source| LinkError::Body { what, source })
    }

    /// The error for a request that got no answer.
    pub fn unreachable(&self, error: &reqwest::Error) -> LinkError {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = cause.to_string();
            source = cause.source();
        }
        LinkError::Unreachable { url: self.base.clone(), reason }
    }
}

/// The pause between attempts: doubles from 0.2 s to 10 s, with up to half of it taken off at random, so that a thousand
/// hosts do not come back at the same moment.
#[derive(Debug, Default)]
pub struct BackOff {
    failures: u32,
}

impl BackOff {
    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(10);

    /// The pause after one more failure. `random` is in 0.0..1.0.
    pub fn next(&mut self, random: f64) -> Duration {
        let full = (Self::MIN * 2u32.pow(self.failures.min(16))).min(Self::MAX);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(1.0 - random / 2.0)
    }

    /// After a success. Says whether there had been failures.
    pub fn reset(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// Sleeps for the next pause, and says the first failure of a row; the others would only repeat it.
    pub async fn pause(&mut self, error: &LinkError) {
        if self.failures == 0 {
            tracing::warn!(%error, "trying again");
        } else {
            tracing::debug!(%error, failures = self.failures, "trying again");
        }
        tokio::time::sleep(self.next(random())).await;
    }
}

/// Jitter needs no secrecy: a version 4 UUID's random bits.
fn random() -> f64 {
    let bits = uuid::Uuid::new_v4().as_u128() as u32;
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_must_double_up_to_its_bound_and_start_again_after_a_success() {
        let mut back_off = BackOff::default();
        let pauses: Vec<_> = (0..8).map(|_| back_off.next(0.0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert!(back_off.reset());
        assert_eq!(back_off.next(0.0), BackOff::MIN);
    }

    #[test]
    fn jitter_must_only_shorten() {
        for _ in 0..100 {
            let pause = BackOff { failures: 3 }.next(random());
            assert!((800..=1_600).contains(&pause.as_millis()), "{pause:?}");
        }
    }

    #[test]
    fn the_token_must_not_show_in_debug_output() {
        let link = Link::new("http://localhost/", SecretString::from("berth_host_x".to_owned())).unwrap();
        assert!(!format!("{link:?}").contains("berth_host_x"));
    }
}

//! Smart HTTP: which requests are git's (gitprotocol-http(5)), for which app, and in what environment its CGI program
//! runs. Authentication happened before; the app is found through the token's team.

use std::time::Duration;

use ::http::{HeaderMap, Method, StatusCode, header};
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use berth_wire::name::AppName;
use tokio::process::Command;

use super::cgi::{self, Run};
use super::protocol::{ENV_DIR, ENV_PUSH, ENV_SECRET};
use super::reconcile::reconcile;
use super::repository::Repositories;
use crate::access::Caller;
use crate::app::App;
use crate::store::apps::{self, AppRow};
use crate::store::seal::secret_new;
use crate::store::tokens::Bearer;

/// The longest one git request may take: the longest build, a release that waits for its instances, and air.
const PUSH_TIME_MAX: Duration = Duration::from_secs(45 * 60);

/// What a request wants of git.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// The refs, for a fetch or a push.
    Refs,
    /// To fetch.
    Fetch,
    /// To push.
    Push,
}

/// Git prints a plain text body as `remote: …`.
fn plain(status: StatusCode, words: impl Into<String>) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], words.into() + "\n").into_response()
}

fn failed(doing: &str, error: &dyn std::fmt::Display) -> Response {
    tracing::error!(%error, "git: {doing} failed");
    let text = error.to_string();
    if text.starts_with("D15") {
        return plain(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("Berth's own machine lacks a program: {text}"),
        );
    }
    plain(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("[A99] Berth failed at {doing}; its log says why. Push again."),
    )
}

fn wants(method: &Method, rest: &str, query: &str) -> Option<Wants> {
    match (method, rest, query) {
        (&Method::GET, "info/refs", "service=git-upload-pack" | "service=git-receive-pack") => {
            Some(Wants::Refs)
        }
        (&Method::POST, "git-upload-pack", _) => Some(Wants::Fetch),
        (&Method::POST, "git-receive-pack", _) => Some(Wants::Push),
        _ => None,
    }
}

pub async fn serve(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((repository, rest)): Path<(String, String)>,
    request: Request,
) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let Some(wants) = wants(request.method(), &rest, &query) else {
        return plain(StatusCode::NOT_FOUND, "this address is only for git: git push berth main");
    };
    let Caller::Api(bearer) = caller else {
        return plain(StatusCode::FORBIDDEN, "[A11] a host's token cannot push; use an API token");
    };
    let name = repository.strip_suffix(".git").unwrap_or(&repository);
    let row = match find(&app, &bearer, name).await {
        Ok(row) => row,
        Err(refusal) => return refusal,
    };
    if let Err(error) = app.git.repositories.ensure(row.id).await {
        return failed("making the repository", &error);
    }
    if query == "service=git-receive-pack"
        && let Err(error) = reconcile(&app, row.id).await
    {
        return failed("reading the repository", &error);
    }
    let Ok(permit) = app.git.running.clone().try_acquire_owned() else {
        return plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "Berth is busy with other pushes; push again in a moment",
        );
    };
    let mut command = command(&app, row.id, &rest, &query, &bearer, request.method(), request.headers());
    let push = if wants == Wants::Push {
        let secret = match secret_new("") {
            Ok(secret) => secret,
            Err(error) => return failed("making a secret", &error),
        };
        let guard = app.git.pushes.begin(row, bearer.name, secret);
        command.env(ENV_DIR, app.git.repositories.dir());
        command.env(ENV_PUSH, guard.push().id.to_string()).env(ENV_SECRET, &guard.push().secret);
        Some(guard)
    } else {
        None
    };
    let run = Run { app, push, permit, time_max: PUSH_TIME_MAX };
    match cgi::run(command, request.into_body(), run).await {
        Ok(response) => response,
        Err(error) => failed("running git", &error),
    }
}

async fn find(app: &App, bearer: &Bearer, name: &str) -> Result<AppRow, Response> {
    let missing = || {
        let words = format!(
            "[A12] there is no app {name} that this token may push to. Make it: berth apps create {name}"
        );
        plain(StatusCode::NOT_FOUND, words)
    };
    let name: AppName = name.parse().map_err(|_| missing())?;
    let found = async { apps::find(&mut *app.store.read().await?, bearer.team, &name).await };
    let found = found.await.map_err(|error| failed("looking up the app", &error))?;
    found.ok_or_else(missing)
}

/// The CGI environment (RFC 3875 4.1; git-http-backend(1)).
fn command(
    app: &App,
    id: berth_wire::id::AppId,
    rest: &str,
    query: &str,
    bearer: &Bearer,
    method: &Method,
    headers: &HeaderMap,
) -> Command {
    let mut command = app.git.repositories.git();
    let text = |name: header::HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", app.git.repositories.dir())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{}/{rest}", Repositories::name(id)))
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method.as_str())
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("REMOTE_USER", bearer.id.to_string())
        .env("REMOTE_ADDR", "berth");
    if let Some(length) = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()) {
        command.env("CONTENT_LENGTH", length);
    }
    for (name, variable) in
        [(header::CONTENT_ENCODING, "HTTP_CONTENT_ENCODING"), (GIT_PROTOCOL, "GIT_PROTOCOL")]
    {
        let value = text(name);
        if !value.is_empty() {
            command.env(variable, value);
        }
    }
    command
}

const GIT_PROTOCOL: header::HeaderName = header::HeaderName::from_static("git-protocol");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_smart_protocol_must_be_served() {
        assert_eq!(wants(&Method::GET, "info/refs", "service=git-receive-pack"), Some(Wants::Refs));
        assert_eq!(wants(&Method::POST, "git-receive-pack", ""), Some(Wants::Push));
        for (method, rest, query) in [
            (Method::GET, "info/refs", ""),
            (Method::GET, "info/refs", "service=git-upload-archive"),
            (Method::GET, "HEAD", ""),
            (Method::GET, "objects/info/packs", ""),
            (Method::GET, "../x.git/config", ""),
            (Method::GET, "git-receive-pack", ""),
        ] {
            assert_eq!(wants(&method, rest, query), None, "{method} {rest} {query}");
        }
    }
}

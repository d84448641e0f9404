//! An app's log: the lines of its instances, fetched from the agents of all hosts over sessions, merged by time with
//! what the platform says about it. Nothing of it is kept here.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use berth_wire::api::{Event, Problem};
use berth_wire::code::Code;
use berth_wire::log::{LogLine, LogSource};
use berth_wire::name::AppName;
use berth_wire::session::LOG_LINES_MAX;
use bytes::Bytes;
use http::header;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use super::extract::{Path, Query, find_app};
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::log_sources::{Heard, Sources, Wish};
use crate::store::{StoreError, events};

/// Lines if nobody says how many: Heroku's.
const LINES_DEFAULT: u32 = 100;
/// How long history may take to arrive from all hosts.
const HISTORY_WITHIN: Duration = Duration::from_secs(10);
/// When following: so long without a line, after the first, means that history is over.
const HISTORY_QUIET: Duration = Duration::from_millis(300);
/// When following: so long without any line means that there is no history.
const HISTORY_NONE: Duration = Duration::from_secs(2);
/// Most bytes of history kept while it is sorted.
const HISTORY_BYTES_MAX: usize = 32 << 20;
/// Most events sent at once.
const EVENTS_MAX: u32 = 1_000;
/// Events are looked for again after so long even if nobody woke us.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Which lines.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// How many of the last lines, at most 10,000; 100 if absent.
    n: Option<u32>,
    /// Whether to go on with new ones.
    #[serde(default)]
    follow: bool,
    /// Only this process type or instance, `web` or `web.1`, or only the requests: `router`.
    process: Option<String>,
}

/// An app's last log lines, oldest first, as JSON lines.
#[utoipa::path(get, path = "/v1/apps/{app}/logs", tag = "logs", params(("app" = String, Path), Which),
    responses((status = 200, content_type = "application/x-ndjson", body = LogLine), (status = 404, body = Problem)))]
pub async fn show(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
    Query(which): Query<Which>,
) -> Result<Response, ApiError> {
    let row = find_app(&mut *app.store.read().await?, &caller, &name).await?;
    if let Some(process) = &which.process
        && !is_process(process)
    {
        return Err(ApiError::new(Code::A13, format!("{process:?} is no process; write web or web.1")));
    }
    let wish = Wish {
        app: row.id,
        process: which.process,
        lines: which.n.unwrap_or(LINES_DEFAULT).min(LOG_LINES_MAX),
        follow: which.follow,
    };
    let (sender, lines) = mpsc::channel(64);
    tokio::spawn(async move {
        if let Err(error) = tell(&app, &wish, &sender).await {
            tracing::error!(%error, app = %wish.app, "a log could not be read");
            let _ = sender.send(Err(std::io::Error::other("the log could not be read"))).await;
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(ReceiverStream::new(lines))).into_response())
}

/// `web` or `web.1`.
fn is_process(text: &str) -> bool {
    let (process, index) =
        text.split_once('.').map_or((text, None), |(process, index)| (process, Some(index)));
    let index_valid = index.is_none_or(|index| index.parse::<u32>().is_ok());
    process.parse::<berth_wire::name::ProcessType>().is_ok() && index_valid
}

type Sender = mpsc::Sender<std::io::Result<Bytes>>;

async fn tell(app: &App, wish: &Wish, sender: &Sender) -> Result<(), StoreError> {
    let began = app.clock.now();
    let mut changed = app.wakes.watch();
    // Events up to this one are history, the others news.
    let mut seen = events::newest_number(&mut *app.store.read().await?).await?;
    let mut sources = Sources::open(app, wish).await?;
    let mut lines = history(&mut sources, wish, began).await;
    for event in events::list(&mut *app.store.read().await?, wish.app, wish.lines.min(EVENTS_MAX)).await? {
        lines.extend(line_of(&event, wish.process.as_deref()));
    }
    lines.sort_by_key(|line| line.at);
    let surplus = lines.len().saturating_sub(wish.lines as usize);
    for line in lines.drain(surplus..).chain(sources.missing()) {
        if !send(sender, &line).await {
            return Ok(());
        }
    }
    if !wish.follow {
        return Ok(());
    }
    loop {
        tokio::select! {
            heard = sources.next() => match heard {
                Heard::Line(line) => if !send(sender, &line).await { return Ok(()) },
                Heard::End => tokio::time::sleep(LOOK_AGAIN).await,
            },
            _ = timeout(LOOK_AGAIN, changed.changed()) => {
                seen = send_news(app, wish, sender, seen).await?;
                sources.refresh().await?;
            }
            () = sender.closed() => return Ok(()),
        }
    }
}

/// The last lines of every host, unsorted.
async fn history(sources: &mut Sources, wish: &Wish, began: Timestamp) -> Vec<LogLine> {
    let deadline = Instant::now() + HISTORY_WITHIN;
    let (mut lines, mut bytes) = (Vec::new(), 0);
    loop {
        let quiet = match (wish.follow, lines.is_empty()) {
            (false, _) => HISTORY_WITHIN,
            (true, true) => HISTORY_NONE,
            (true, false) => HISTORY_QUIET,
        };
        let heard = timeout_at(deadline.min(Instant::now() + quiet), sources.next()).await;
        let Ok(Heard::Line(line)) = heard else { return lines };
        let is_new = line.at > began;
        bytes += line.text.len();
        lines.push(line);
        if lines.len() > 2 * LOG_LINES_MAX as usize || bytes > HISTORY_BYTES_MAX {
            lines.sort_by_key(|line: &LogLine| line.at);
            lines.drain(..lines.len() / 2);
            bytes = lines.iter().map(|line| line.text.len()).sum();
        }
        if wish.follow && is_new {
            return lines;
        }
    }
}

async fn send_news(app: &App, wish: &Wish, sender: &Sender, mut seen: i64) -> Result<i64, StoreError> {
    let news = events::list_after(&mut *app.store.read().await?, wish.app, seen, EVENTS_MAX).await?;
    for (number, event) in news {
        seen = number;
        if let Some(line) = line_of(&event, wish.process.as_deref()) {
            send(sender, &line).await;
        }
    }
    Ok(seen)
}

/// False if the reader has hung up.
async fn send(sender: &Sender, line: &LogLine) -> bool {
    let Ok(mut json) = serde_json::to_vec(line) else { return true };
    json.push(b'\n');
    sender.send(Ok(json.into())).await.is_ok()
}

/// An event as a line of the log; none if it is not of the wanted process.
fn line_of(event: &Event, process: Option<&str>) -> Option<LogLine> {
    let wanted = process.is_none_or(|wanted| {
        event.process.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    let text = match event.code {
        Some(code) => format!("Error {code} ({}): {}", code.title(), event.message),
        None => event.message.clone(),
    };
    wanted.then(|| LogLine { at: event.at, source: LogSource::Berth, process: event.process.clone(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_must_become_lines_of_their_process() {
        let event = |process: &str, code| Event {
            at: Timestamp::UNIX_EPOCH,
            process: process.into(),
            code,
            message: "exited with status 1".into(),
        };
        let line = line_of(&event("web.1", Some(Code::R16)), Some("web")).unwrap();
        assert_eq!(line.text, "Error R16 (Exited at once): exited with status 1");
        assert!(line_of(&event("web.1", None), Some("web.1")).is_some());
        assert!(line_of(&event("web.10", None), Some("web.1")).is_none());
        assert!(line_of(&event("webby.1", None), Some("web")).is_none());
        assert!(line_of(&event("api", None), None).is_some());
    }

    #[test]
    fn a_process_must_be_a_type_or_an_instance() {
        assert!(is_process("web") && is_process("web.12"));
        for bad in ["", "web.", "web.x", "../x", "web.1.2", "Web"] {
            assert!(!is_process(bad), "{bad}");
        }
    }
}

//! From the edge's access log to the router's lines of one app, in the Heroku manner.
//!
//! The edge faces the internet and may be anybody's by now: whatever its file holds, a line is bounded, on one line, and of no
//! app but the one asked for.

use berth_wire::code::Code;
use berth_wire::id::AppId;
use berth_wire::log::{LogLine, LogSource};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// As a process that somebody wants the lines of: the requests, whichever instance answered, and without it none of them.
pub const PROCESS: &str = "router";

/// Who is named where no instance had the request: the process type that the edge serves.
const NO_INSTANCE: &str = "web";

/// A longer line is not the edge's own: it bounds a request's head well below this.
const LINE_BYTES_MAX: usize = 256 << 10;
/// Most characters of a path that are shown.
const PATH_CHARACTERS_MAX: usize = 2_048;
/// Most characters of any other text that are shown: a host name is no longer.
const WORD_CHARACTERS_MAX: usize = 253;
/// Above this a time is nonsense: 30 days.
const MILLIS_MAX: f64 = 30.0 * 24.0 * 3_600.0 * 1_000.0;

/// What is read of a line of the access log.
#[derive(Deserialize)]
struct Request {
    time: Timestamp,
    method: String,
    host: String,
    path: String,
    status: u16,
    bytes: u64,
    queue_ms: f64,
    connect_ms: f64,
    service_ms: f64,
    client: std::net::IpAddr,
    request_id: String,
    app_id: Option<AppId>,
    process: Option<String>,
    code: Option<Code>,
}

/// The line of one request; none if it is not this app's.
pub fn line_of(line: &[u8], app: AppId) -> Option<LogLine> {
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(line).ok()?;
    // Most lines are other apps': they are passed over before anything is taken apart.
    if !text.contains(&app.to_string()) {
        return None;
    }
    let request: Request = serde_json::from_str(text).ok()?;
    if request.app_id != Some(app) {
        return None;
    }
    let process = request.process.as_deref().map_or_else(|| NO_INSTANCE.to_owned(), word);
    let (at, text) = (request.ended().min(Timestamp::now()), request.text(&process));
    Some(LogLine { at, source: LogSource::Router, process, text })
}

impl Request {
    /// When its answer was complete: the order of the edge's lines.
    fn ended(&self) -> Timestamp {
        let millis = whole(self.queue_ms) + whole(self.connect_ms) + whole(self.service_ms);
        self.time.checked_add(SignedDuration::from_millis(millis)).unwrap_or(self.time)
    }

    fn text(&self, process: &str) -> String {
        let how = match self.code {
            Some(code) => format!("at=error code={code} desc={:?}", code.title()),
            None => "at=info".to_owned(),
        };
        // As Rust quotes it: what is no printable character is escaped.
        let quoted = format!("{:?}", self.path.chars().take(PATH_CHARACTERS_MAX).collect::<String>());
        let path: String = quoted[1..quoted.len() - 1].chars().take(PATH_CHARACTERS_MAX).collect();
        format!(
            "{how} method={} path=\"{path}\" host={} request_id={} fwd=\"{}\" dyno={process} connect={}ms service={}ms \
             status={} bytes={}",
            word(&self.method),
            word(&self.host),
            word(&self.request_id),
            self.client,
            whole(self.connect_ms),
            whole(self.service_ms),
            self.status,
            self.bytes,
        )
    }
}

/// What of a text may stand in a line without quotes.
fn word(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() && *c != '"').take(WORD_CHARACTERS_MAX).collect()
}

/// Whole milliseconds.
#[allow(clippy::cast_possible_truncation, reason = "it is finite and far from the bounds of an i64")]
fn whole(millis: f64) -> i64 {
    if millis.is_finite() { millis.clamp(0.0, MILLIS_MAX).round() as i64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn app(n: u128) -> AppId {
        AppId(Uuid::from_u128(n))
    }

    fn request() -> serde_json::Value {
        serde_json::json!({
            "time": "2026-11-24T16:20:00Z", "method": "GET", "host": "shop.localhost", "path": "/x", "status": 200,
            "bytes": 123, "queue_ms": 0.4, "connect_ms": 1.2, "service_ms": 12.0, "client": "192.0.2.7",
            "request_id": "0123456789-0123456789", "app": "shop", "app_id": app(1), "instance": null,
            "process": "web.1", "code": null, "retries": 0, "upgraded": false,
        })
    }

    fn shown(request: &serde_json::Value) -> Option<LogLine> {
        line_of(request.to_string().as_bytes(), app(1))
    }

    #[test]
    fn a_request_must_look_like_herokus_and_be_stamped_with_its_end() {
        let line = shown(&request()).unwrap();
        assert_eq!(
            line.to_string(),
            "2026-11-24T16:20:00.013000+00:00 router[web.1]: at=info method=GET path=\"/x\" host=shop.localhost \
             request_id=0123456789-0123456789 fwd=\"192.0.2.7\" dyno=web.1 connect=1ms service=12ms status=200 bytes=123"
        );
        let mut failed = request();
        (failed["code"], failed["process"], failed["status"]) = ("H14".into(), ().into(), 503.into());
        let line = shown(&failed).unwrap().to_string();
        assert!(line.contains("router[web]: at=error code=H14 desc=\"No web instances running\""), "{line}");
    }

    #[test]
    fn another_apps_requests_must_never_be_shown_even_if_they_name_this_one() {
        let mut theirs = request();
        (theirs["app_id"], theirs["path"]) =
            (serde_json::json!(app(2)), format!("/\"app_id\":\"{}\"", app(1)).into());
        assert_eq!(shown(&theirs), None);
        theirs["app_id"] = ().into();
        assert_eq!(shown(&theirs), None);
    }

    #[test]
    fn whatever_the_edge_writes_a_line_must_be_one_and_bounded() {
        let mut forged = request();
        for field in ["method", "host", "path", "request_id", "process"] {
            forged[field] = format!("a\n2026 app[web.1]: \u{1b}[31m\"{}", "x".repeat(30_000)).into();
        }
        (forged["service_ms"], forged["time"]) = (1e300.into(), "9999-12-30T22:00:00Z".into());
        let line = shown(&forged).unwrap();
        assert!(line.text.len() <= LogLine::TEXT_BYTES_MAX, "{}", line.text.len());
        assert!(!format!("{}{}", line.text, line.process).contains(|c: char| c.is_control()));
        assert!(line.at <= Timestamp::now());
        assert_eq!(line_of(&vec![b'x'; LINE_BYTES_MAX + 1], app(1)), None);
        assert_eq!(line_of(br#"{"time":"2026-11-24T16:20:00Z","lines_lost":3}"#, app(1)), None);
    }
}

//! Log lines, stamped in the Heroku manner: `2026-11-24T16:20:00.123456+00:00 app[web.1]: text`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    /// Written by the app's own processes.
    App,
    /// Written by the platform about the app: state changes, releases, scaling.
    Berth,
    /// Written by the edge: one line per request.
    Router,
}

/// One line. `text` holds no newline and is at most [`LogLine::TEXT_BYTES_MAX`] long; a longer one was cut into several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// When the launcher read it, or the platform said it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Who wrote it.
    pub source: LogSource,
    /// Which instance: `web.1`, or `api`, `build`, `release.1`.
    pub process: String,
    /// What it says. Bytes that are not UTF-8 have become U+FFFD.
    pub text: String,
}

impl LogLine {
    /// Heroku's Logplex splits at 10,000 bytes; so do we.
    pub const TEXT_BYTES_MAX: usize = 10_000;
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            LogSource::App => "app",
            LogSource::Berth => "berth",
            LogSource::Router => "router",
        };
        let at = self.at.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00");
        write!(f, "{at} {source}[{}]: {}", self.process, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_must_look_like_herokus() {
        let line = LogLine {
            at: "2026-11-24T16:20:00.123456789Z".parse().unwrap(),
            source: LogSource::App,
            process: "web.1".into(),
            text: "Listening".into(),
        };
        assert_eq!(line.to_string(), "2026-11-24T16:20:00.123456+00:00 app[web.1]: Listening");
    }
}

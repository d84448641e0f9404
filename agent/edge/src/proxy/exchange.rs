//! What is remembered of one request while it lasts. Dropping it, for whatever reason, is its end: the counters
//! and the access log get it then, and the instance is no longer in use by it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_wire::code::Code;
use http::{HeaderMap, Method, Request, Uri};

use super::answer::Failure;
use super::headers::REQUEST_ID;
use crate::Edge;
use crate::access_log::Line;
use crate::instance::InFlight;
use crate::routes::Entry;

/// What the log says of a client that left before its answer began (nginx's number).
const CLIENT_LEFT: u16 = 499;

/// One request.
pub struct Exchange {
    /// Everything shared.
    pub edge: Arc<Edge>,
    /// When its head had been read.
    pub started: Instant,
    /// As the app gets it.
    pub request_id: String,
    /// The table's key; empty until it is known.
    pub host: String,
    /// The app.
    pub entry: Option<Arc<Entry>>,
    /// The instance that has it.
    pub in_flight: Option<InFlight>,
    /// From its head to the choice of an instance.
    pub queued: Duration,
    /// Connecting.
    pub connecting: Duration,
    /// Attempts beyond the first.
    pub retries: u32,
    /// What the client gets; 0 until that is known.
    pub status: u16,
    /// Bytes of the response's body passed on.
    pub bytes: u64,
    /// What went wrong.
    pub code: Option<Code>,
    /// When it became a tunnel, from its head. The tunnel's life is no latency.
    pub upgraded: Option<Duration>,
    time: jiff::Timestamp,
    client: IpAddr,
    method: Method,
    uri: Uri,
}

impl Exchange {
    /// A request has come. Boxed: it is moved along with the response.
    pub fn begin<B>(edge: Arc<Edge>, client: IpAddr, request: &Request<B>) -> Box<Self> {
        Box::new(Self {
            edge,
            started: Instant::now(),
            request_id: request_id(request.headers()),
            host: String::new(),
            entry: None,
            in_flight: None,
            queued: Duration::ZERO,
            connecting: Duration::ZERO,
            retries: 0,
            status: 0,
            bytes: 0,
            code: None,
            upgraded: None,
            time: jiff::Timestamp::now(),
            client: client.to_canonical(),
            method: request.method().clone(),
            uri: request.uri().clone(),
        })
    }

    /// The edge answers with this.
    pub fn failed(&mut self, failure: Failure) {
        self.status = failure.status.as_u16();
        self.code = Some(failure.code);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let total = self.started.elapsed();
        let status = if self.status == 0 { CLIENT_LEFT } else { self.status };
        let instance = self.in_flight.as_ref().map(InFlight::instance);
        if let Some(instance) = instance {
            instance.counters.record(status, self.upgraded.unwrap_or(total));
        }
        if let Some(code) = self.code {
            self.edge.stats.error(code);
        }
        let service = total.saturating_sub(self.queued).saturating_sub(self.connecting);
        self.edge.log.push(Line {
            time: self.time,
            method: std::mem::take(&mut self.method),
            host: std::mem::take(&mut self.host),
            path: std::mem::take(&mut self.uri),
            status,
            bytes: self.bytes,
            queue_ms: millis(self.queued),
            connect_ms: millis(self.connecting),
            service_ms: millis(service),
            client: self.client,
            request_id: std::mem::take(&mut self.request_id),
            app: self.entry.as_ref().map(|entry| entry.app_name.clone()),
            app_id: self.entry.as_ref().map(|entry| entry.app),
            instance: instance.map(|instance| instance.id),
            process: instance.map(|instance| instance.process.clone()),
            code: self.code,
            retries: self.retries,
            upgraded: self.upgraded.is_some(),
        });
    }
}

/// To the microsecond.
fn millis(time: Duration) -> f64 {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1_000.0
}

/// The client's own id if it is one (20 to 200 of `A-Za-z0-9-_.`, as Heroku has it), otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match given {
        Some(id) if (20..=200).contains(&id.len()) && id.bytes().all(plain) => id.to_owned(),
        _ => uuid::Uuid::new_v4().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_plain_request_id_must_be_kept() {
        let given =
            |id: &str| request_id(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(id).unwrap())]));
        assert_eq!(given("0123456789-0123456789"), "0123456789-0123456789");
        for bad in ["short", "<script>aaaaaaaaaaaaaaaaaaaa", &"a".repeat(201)] {
            assert_ne!(given(bad), bad);
            assert_eq!(given(bad).len(), 36);
        }
    }
}

//! What the edge says when it cannot pass a request on: a code (`berth_wire::code`), a status, a sentence that says
//! whose turn it is, as a small page or as problem details (RFC 9457) by `Accept`.

use berth_wire::code::Code;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::body::AnswerBody;
use super::headers::REQUEST_ID;

/// The code again, for programs that read no bodies.
pub const CODE: HeaderName = HeaderName::from_static("berth-code");

/// Why a request was not passed on, or not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The answer's status.
    pub status: StatusCode,
    /// The code.
    pub code: Code,
    /// What happened and what can be done, for whoever sees the page.
    pub detail: &'static str,
}

macro_rules! failures {
    ($($name:ident = $status:ident $code:ident $detail:literal,)*) => {
        #[allow(missing_docs)] // The sentence beside each is its documentation.
        impl Failure {
            $(pub const $name: Failure =
                Failure { status: StatusCode::$status, code: Code::$code, detail: $detail };)*
        }
    };
}

failures! {
    H12 = GATEWAY_TIMEOUT H12 "The app took the request and sent nothing back in time. Its log says what it was doing.",
    H13_CLOSED = BAD_GATEWAY H13 "The app closed the connection without an answer. Its log may say why.",
    H13_GARBLED = BAD_GATEWAY H13 "The app's answer was not HTTP/1.1. Its log may say why.",
    H13_UNASKED_UPGRADE = BAD_GATEWAY H13 "The app switched to another protocol without being asked to.",
    H15_REQUEST = REQUEST_TIMEOUT H15 "The request's body stopped coming. Send it again.",
    H21 = BAD_GATEWAY H21 "The app's instance refused the connection. If it has just crashed, it is being restarted.",
    H40 = NOT_FOUND H40 "No app has this domain. Check the address; an app's domains are in `berth status`.",
    H41_HOST = BAD_REQUEST H41 "The request must name exactly one host, in its Host header.",
    H41_FRAMING = BAD_REQUEST H41 "It is not clear where the request's body ends: it must have one Content-Length or one Transfer-Encoding: chunked.",
    H41_CONNECT = METHOD_NOT_ALLOWED H41 "This is no forward proxy: CONNECT is not possible.",
    H41_EXPECTATION = EXPECTATION_FAILED H41 "Of expectations, only 100-continue can be met.",
    H41_TOO_LARGE = PAYLOAD_TOO_LARGE H41 "The request's body is larger than the edge passes on.",
    H99_NO_TABLE = SERVICE_UNAVAILABLE H99 "The edge has just been set up and does not know any app yet. Try again in a moment.",
}

impl Failure {
    /// The app has no instance, for this reason.
    pub fn absent(code: Code) -> Self {
        let detail = match code {
            Code::H10 => "The app crashed and has not come up again yet. Its log says why.",
            Code::H20 => "The app did not come up in time. Its log says why.",
            _ => "The app has no running web instances. Its owner can start one: berth scale web=1.",
        };
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code, detail }
    }
}

/// What a client would rather read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A page.
    Html,
    /// Problem details.
    Json,
}

/// What the client would rather read: the first of the two that `Accept` names; a page if it names neither.
pub fn wanted(headers: &HeaderMap) -> Wanted {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in accepted.flat_map(|value| value.split(',')) {
        let media = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media.as_str() {
            "text/html" | "application/xhtml+xml" => return Wanted::Html,
            "application/json" | "application/problem+json" => return Wanted::Json,
            _ => {}
        }
    }
    Wanted::Html
}

/// The answer.
pub fn page(failure: Failure, wanted: Wanted, request_id: &str) -> Response<AnswerBody> {
    let (kind, text) = match wanted {
        Wanted::Html => ("text/html; charset=utf-8", html(failure, request_id)),
        Wanted::Json => ("application/problem+json", json(failure, request_id)),
    };
    let mut response = Response::new(AnswerBody::page(Bytes::from(text)));
    *response.status_mut() = failure.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CODE, HeaderValue::from_static(failure.code.as_str()));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if failure.code == Code::H41 {
        // What follows a malformed request on its connection may be anything (RFC 9112 6.3, 11.2).
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn html(failure: Failure, request_id: &str) -> String {
    let Failure { status, code, detail } = failure;
    let title = code.title();
    let status = status.as_u16();
    // Every part is the edge's own text, or a request id, whose characters are checked: nothing to escape but these.
    let detail = detail.replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{status} {title}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em;\
         color-scheme:light dark}}small{{opacity:.7}}</style></head>\n\
         <body><h1>{title}</h1><p>{detail}</p>\
         <p><small>{code}, status {status}, request {request_id}. <code>berth explain {code}</code> says more.</small></p></body></html>\n"
    )
}

fn json(failure: Failure, request_id: &str) -> String {
    let problem = serde_json::json!({
        "title": failure.code.title(),
        "status": failure.status.as_u16(),
        "code": failure.code.as_str(),
        "detail": failure.detail,
        "request_id": request_id,
    });
    format!("{problem}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_by(accept: &'static str) -> Wanted {
        wanted(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]))
    }

    #[test]
    fn the_form_must_follow_accept() {
        assert_eq!(wanted_by("text/html,application/xhtml+xml,*/*;q=0.8"), Wanted::Html);
        assert_eq!(wanted_by("application/json, text/plain, */*"), Wanted::Json);
        assert_eq!(wanted_by("*/*"), Wanted::Html);
        assert_eq!(wanted(&HeaderMap::new()), Wanted::Html);
    }

    #[test]
    fn an_answer_must_carry_its_code_in_a_header_and_in_the_text() {
        let response = page(Failure::absent(Code::H14), Wanted::Json, "r-1");
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[CODE], "H14");
        let text = json(Failure::H40, "r-1");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["code"], "H40");
        assert!(html(Failure::H40, "r-1").contains("berth explain H40"));
    }
}

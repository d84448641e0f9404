//! Whether a request may be passed on at all. The parser (hyper) has refused by then what is not HTTP/1.1, among it: spaces before a
//! colon, differing Content-Lengths, a Transfer-Encoding that does not end in `chunked` or comes with HTTP/1.0. If both
//! Transfer-Encoding and Content-Length come, it goes by the former, drops the latter and closes the connection after the
//! answer (RFC 9112 6.3).

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Request, Version};

use super::answer::Failure;
use super::headers::connection_names;
use crate::host;

/// What a request asked for.
#[derive(Debug)]
pub struct Checked {
    /// The table's key.
    pub host: String,
    /// What `Host` is to say, if it is not the header's own value: the authority of an absolute target wins (RFC 9112 3.2.2).
    pub authority: Option<HeaderValue>,
    /// The protocol to upgrade to.
    pub upgrade: Option<HeaderValue>,
}

/// Checks form, host, framing and announced size.
///
/// # Errors
/// The answer that the client gets instead.
pub fn check<B>(request: &Request<B>, body_bytes_max: u64) -> Result<Checked, Failure> {
    if request.method() == Method::CONNECT {
        return Err(Failure::H41_CONNECT);
    }
    let headers = request.headers();
    check_framing(headers, body_bytes_max)?;
    if let Some(expectation) = headers.get(EXPECT)
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Failure::H41_EXPECTATION);
    }
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(given), None) = (hosts.next(), hosts.next()) else {
        return Err(Failure::H41_HOST);
    };
    let (wanted, authority) = match request.uri().authority() {
        Some(authority) => {
            let value = HeaderValue::from_str(authority.as_str()).map_err(|_| Failure::H41_HOST)?;
            (authority.as_str(), Some(value))
        }
        None => (given.to_str().map_err(|_| Failure::H41_HOST)?, None),
    };
    let host = host::key(wanted).map_err(|_| Failure::H41_HOST)?.into_owned();
    let upgrade = wanted_upgrade(request.version(), headers);
    Ok(Checked { host, authority, upgrade })
}

/// RFC 9112 6.3: one way to know where a message ends, or none.
fn check_framing(headers: &HeaderMap, body_bytes_max: u64) -> Result<(), Failure> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        let chunked = encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !chunked || encodings.next().is_some() || headers.contains_key(CONTENT_LENGTH) {
            return Err(Failure::H41_FRAMING);
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let digits = length.as_bytes();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) || lengths.next().is_some() {
            return Err(Failure::H41_FRAMING);
        }
        let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
        if length.is_none_or(|length| length > body_bytes_max) {
            return Err(Failure::H41_TOO_LARGE);
        }
    }
    Ok(())
}

/// The protocol asked for, if the request asks for one as it must (RFC 9110 7.8). A body would have to come before the tunnel;
/// WebSocket has none, and h2c (which could smuggle requests past the edge) is not passed on.
fn wanted_upgrade(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let asked = connection_names(headers).any(|name| name.eq_ignore_ascii_case("upgrade"));
    let body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    let h2c = protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2");
    (asked && !body && !h2c && version == Version::HTTP_11).then(|| protocol.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(lines: &[(&'static str, &'static str)], uri: &str) -> Result<Checked, Failure> {
        let mut request = Request::builder().uri(uri).body(()).unwrap();
        for (name, value) in lines {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        check(&request, 1_000)
    }

    #[test]
    fn a_request_must_name_one_host() {
        assert_eq!(checked(&[("host", "Shop.localhost:80")], "/").unwrap().host, "shop.localhost");
        assert_eq!(checked(&[], "/").unwrap_err(), Failure::H41_HOST);
        assert_eq!(checked(&[("host", "a"), ("host", "b")], "/").unwrap_err(), Failure::H41_HOST);
        assert_eq!(checked(&[("host", "a b")], "/").unwrap_err(), Failure::H41_HOST);
    }

    #[test]
    fn an_absolute_target_must_win_over_the_header() {
        let checked = checked(&[("host", "other.localhost")], "http://shop.localhost:80/x").unwrap();
        assert_eq!(checked.host, "shop.localhost");
        assert_eq!(checked.authority.unwrap(), "shop.localhost:80");
    }

    #[test]
    fn framing_that_can_be_read_two_ways_must_be_refused() {
        for bad in [
            &[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "3")][..],
            &[("host", "a"), ("transfer-encoding", "gzip, chunked")],
            &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("host", "a"), ("content-length", "+3")],
            &[("host", "a"), ("content-length", "3, 3")],
            &[("host", "a"), ("content-length", "")],
            &[("host", "a"), ("content-length", "3"), ("content-length", "3")],
        ] {
            assert_eq!(checked(bad, "/").unwrap_err(), Failure::H41_FRAMING, "{bad:?}");
        }
        let large = &[("host", "a"), ("content-length", "1001")];
        assert_eq!(checked(large, "/").unwrap_err(), Failure::H41_TOO_LARGE);
    }

    #[test]
    fn only_a_proper_upgrade_must_be_passed_on() {
        let proper = [("host", "a"), ("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert_eq!(checked(&proper, "/").unwrap().upgrade.unwrap(), "websocket");
        for not in [
            &[("host", "a"), ("upgrade", "websocket")][..],
            &[("host", "a"), ("connection", "upgrade"), ("upgrade", "h2c")],
            &[("host", "a"), ("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "4")],
        ] {
            assert!(checked(not, "/").unwrap().upgrade.is_none(), "{not:?}");
        }
    }
}

//! What of a message's headers is for the next hop only (RFC 9110 7.6.1), and what the edge adds.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Response, Uri, Version};

use super::Connection;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Becomes the environment variable HTTP_PROXY in CGI programs ("httpoxy", CVE-2016-5385 and others).
const PROXY: HeaderName = HeaderName::from_static("proxy");
/// The client's address, after those it claims to have come through.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `http`.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The port that the client came to.
pub const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// Frameworks build links from it; only the edge could say it, and `Host` says it already.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// RFC 7239's word for all of these. The edge does not speak it, so whatever a client says in it would be believed.
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// One per request, in the access log too.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The names in `Connection`, trimmed.
pub fn connection_names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// Removes what concerns one connection only, and what `Connection` names.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = connection_names(headers).filter_map(|name| name.parse().ok()).collect();
        for name in named {
            // Where a message ends and whom it is for is not the sender's to withdraw.
            if name != HOST && name != CONTENT_LENGTH {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// Makes a client's request head the one that the instance gets.
pub fn prepare_request(
    head: &mut Parts,
    connection: Connection,
    request_id: &str,
    authority: Option<HeaderValue>,
    upgrade: Option<HeaderValue>,
) {
    let headers = &mut head.headers;
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    let trailers = headers.get(TE).is_some_and(|te| {
        te.to_str().is_ok_and(|te| te.split(',').any(|one| one.trim().eq_ignore_ascii_case("trailers")))
    });
    remove_hop_by_hop(headers);
    remove_lookalikes(headers);
    // The edge itself answers 100 (Continue) when the instance starts to read.
    for name in [EXPECT, PROXY, FORWARDED, FORWARDED_HOST] {
        headers.remove(name);
    }
    if let Some(authority) = authority {
        headers.insert(HOST, authority);
    }
    append_forwarded_for(headers, connection);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.insert(FORWARDED_PORT, HeaderValue::from(connection.port));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut hop = Vec::new();
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        hop.push("TE");
    }
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        hop.push("Upgrade");
    }
    if !hop.is_empty()
        && let Ok(names) = HeaderValue::from_str(&hop.join(", "))
    {
        headers.insert(CONNECTION, names);
    }
    head.version = Version::HTTP_11;
    head.uri = origin_form(&head.uri);
}

/// Makes an instance's response head the one that the client gets. The version is the edge's own (RFC 9110 6.2): an
/// instance that speaks HTTP/1.0 must not cost the client its kept connection.
pub fn prepare_response<B>(response: &mut Response<B>, upgraded: bool) {
    *response.version_mut() = Version::HTTP_11;
    let headers = response.headers_mut();
    let protocol = headers.get(UPGRADE).cloned().filter(|_| upgraded);
    remove_hop_by_hop(headers);
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Servers that turn headers into variables cannot tell `X_Forwarded_For` from `X-Forwarded-For`: a client could speak for the edge, or
/// say twice where its body ends.
fn remove_lookalikes(headers: &mut HeaderMap) {
    let forwarded = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_PORT, FORWARDED_HOST, REQUEST_ID];
    let guarded = [&forwarded[..], &[HOST, CONTENT_LENGTH, TRANSFER_ENCODING]].concat();
    let alike: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .filter(|name| guarded.iter().any(|real| name.as_str().replace('_', "-") == real.as_str()))
        .cloned()
        .collect();
    for name in alike {
        headers.remove(name);
    }
}

fn append_forwarded_for(headers: &mut HeaderMap, connection: Connection) {
    let client = connection.client.ip().to_canonical().to_string();
    let earlier: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let value = if earlier.is_empty() { client } else { format!("{}, {client}", earlier.join(", ")) };
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// `/path?query`, or `*`, without scheme and authority (RFC 9112 3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    if uri.authority().is_none() {
        return uri.clone();
    }
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    const PEER: Connection = Connection {
        client: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), 4_000),
        port: 8_080,
    };

    fn prepared(lines: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::builder().uri("http://shop.localhost/a?b").body(()).unwrap();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        let (mut head, ()) = request.into_parts();
        prepare_request(&mut head, PEER, "id-1", None, None);
        assert_eq!(head.uri, "/a?b");
        head.headers
    }

    #[test]
    fn what_the_edge_says_must_not_be_the_clients() {
        let headers = prepared(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x_forwarded_for", "10.0.0.3"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=10.0.0.4;host=evil"),
            ("proxy", "evil"),
        ]);
        assert_eq!(headers[&FORWARDED_FOR], "10.0.0.1, 10.0.0.2, 192.0.2.7");
        assert_eq!(headers[&FORWARDED_PROTO], "http");
        assert_eq!(headers[&FORWARDED_PORT], "8080");
        assert_eq!(headers[&REQUEST_ID], "id-1");
        for gone in ["x_forwarded_for", "x-forwarded-host", "forwarded", "proxy"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn a_response_must_have_the_edges_version() {
        let mut response =
            Response::builder().version(Version::HTTP_10).header(CONNECTION, "close").body(()).unwrap();
        prepare_response(&mut response, false);
        assert_eq!(response.version(), Version::HTTP_11);
        assert!(response.headers().is_empty());
    }

    #[test]
    fn hop_by_hop_headers_must_stay_behind() {
        let headers = prepared(&[
            ("connection", "close, X-Secret"),
            ("connection", "host, x-forwarded-for"),
            ("host", "shop.localhost"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, deflate"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("cookie", "a=b"),
        ]);
        for gone in ["x-secret", "keep-alive", "upgrade", "expect"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers[CONNECTION], "TE");
        assert_eq!(headers[TE], "trailers");
        assert_eq!(headers[TRANSFER_ENCODING], "chunked");
        assert_eq!(headers["cookie"], "a=b");
        assert_eq!(headers[HOST], "shop.localhost");
        assert!(headers.contains_key(FORWARDED_FOR));
    }

    proptest! {
        #[test]
        fn whatever_connection_names_must_not_be_passed_on(
            names in proptest::collection::vec("[a-zA-Z][a-zA-Z0-9-]{0,12}", 1..6),
            separator in " ?, ?",
        ) {
            let connection = names.join(&separator);
            let mut lines = vec![("connection", connection.as_str()), ("host", "a")];
            lines.extend(names.iter().map(|name| (name.as_str(), "1")));
            let headers = prepared(&lines);
            for name in names.iter().map(|name| name.to_ascii_lowercase()) {
                let ours = ["host", "content-length", "te"].contains(&name.as_str());
                prop_assert!(ours || headers.get(&name).is_none_or(|value| value != "1"), "{}", name);
            }
        }

        #[test]
        fn any_headers_must_leave_exactly_one_of_each_of_ours(
            lines in proptest::collection::vec(("x[-_]forwarded[-_](for|proto|port|host)|x[-_]request[-_]id", "[ -~]{0,20}"), 0..12),
        ) {
            let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let headers = prepared(&lines);
            for ours in [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_PORT, REQUEST_ID] {
                prop_assert_eq!(headers.get_all(&ours).iter().count(), 1);
            }
            prop_assert!(headers[&FORWARDED_FOR].to_str().unwrap().ends_with("192.0.2.7"));
            prop_assert!(headers.keys().all(|name| !name.as_str().contains('_')));
        }
    }
}

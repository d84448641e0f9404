//! A request's head, as the edge judges and changes it, and the addresses of the registry.

use berth_control_plane::registry::path;
use berth_edge::host;
use berth_edge::proxy::Connection;
use berth_edge::proxy::check::check;
use berth_edge::proxy::headers::{FORWARDED_FOR, REQUEST_ID, prepare_request};
use http::{HeaderName, HeaderValue, Request};

use crate::{Target, target, texts};

pub const TARGETS: &[Target] = &[
    target("http-head", head, heads),
    target("host", a_host, hosts),
    target("registry-path", registry_path, paths),
];

/// Method, target, then headers, one a line.
fn request(input: &[u8]) -> Option<Request<()>> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.split(|byte| *byte == b' ');
    let mut request = Request::builder().method(first.next()?).uri(first.next()?);
    for line in lines.take(100) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    request.body(()).ok()
}

fn head(input: &[u8]) {
    let Some(request) = request(input) else { return };
    let Ok(checked) = check(&request, 1 << 20) else { return };
    assert_eq!(host::key(&checked.host).as_deref(), Ok(&*checked.host), "what was found is the key itself");
    let chunked = request.headers().contains_key("transfer-encoding");
    let length = request.headers().get("content-length").cloned();
    assert!(!(chunked && length.is_some()), "two ways to know where it ends");
    let (mut parts, ()) = request.into_parts();
    let connection = Connection { client: "192.0.2.7:5".parse().unwrap(), port: 80 };
    prepare_request(&mut parts, connection, "the-id", checked.authority, checked.upgrade);
    let headers = &parts.headers;
    assert_eq!(headers.get_all("host").iter().count(), 1);
    assert_eq!(headers.get("content-length"), length.as_ref());
    assert_eq!(headers.contains_key("transfer-encoding"), chunked);
    for gone in ["proxy", "forwarded", "x-forwarded-host", "keep-alive", "proxy-connection"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers.get_all(REQUEST_ID).iter().collect::<Vec<_>>(), ["the-id"]);
    // The last address is what the edge saw; before it is what the client says.
    let last = headers.get_all(FORWARDED_FOR).iter().next_back().unwrap().as_bytes();
    assert!(last.ends_with(b"192.0.2.7"));
    // Nothing that a CGI program would take for what the edge says, or for where the body ends.
    for alike in ["content-length", "transfer-encoding", "host", "x-forwarded-for", "x-request-id"] {
        let is_alike = |name: &HeaderName| name.as_str() != alike && name.as_str().replace('_', "-") == alike;
        assert!(!headers.keys().any(is_alike), "{headers:?}");
    }
    assert!(parts.uri.scheme().is_none() && parts.uri.authority().is_none(), "{}", parts.uri);
}

fn a_host(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(key) = host::key(&text) else { return };
    assert!(key.len() <= 255 && !key.bytes().any(|byte| byte.is_ascii_uppercase() && !key.starts_with('[')));
    assert_eq!(host::key(&key).as_deref(), Ok(&*key));
}

fn registry_path(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok((repository, target)) = path::parse(&text) else { return };
    let name = repository.to_string();
    // Both become parts of files' paths.
    assert!(!name.split('/').any(|part| part.is_empty() || part == "." || part == ".."), "{name}");
    assert_eq!(path::Repository::parse(&name), Some(repository));
    if let path::Target::Manifest(reference) = target {
        let text = reference.to_string();
        assert!(!text.is_empty() && !text.contains(['/', '\0']) && !text.starts_with('.'), "{text}");
    }
}

fn heads() -> Vec<Vec<u8>> {
    texts(&[
        "GET /a?b=c\nHost: shop.localhost\nX-Forwarded-For: 1.2.3.4\nConnection: close, x-secret\nX-Secret: y\nTE: trailers",
        "POST http://Shop.localhost:80/x\nHost: other\nContent-Length: 5\nExpect: 100-continue",
        "POST /\nHost: a\nTransfer-Encoding: chunked\nTrailer: x",
        "GET /\nHost: a\nConnection: Upgrade\nUpgrade: websocket",
        "OPTIONS *\nHost: [::1]:80\nProxy: x\nForwarded: for=x\nContent_Length: 7\nX_Forwarded_For: z",
    ])
}

fn hosts() -> Vec<Vec<u8>> {
    texts(&[
        "shop.localhost",
        "Shop.LOCALHOST.:80",
        "[::1]:8080",
        "[2001:db8::1]",
        "127.0.0.1:9",
        "a..b",
        "xn--bcher-kva.example",
        "[::ffff:1.2.3.4]",
    ])
}

fn paths() -> Vec<Vec<u8>> {
    let digest = berth_wire::digest::Digest::of(b"x");
    texts(&[
        &format!("stacks/berth-13/blobs/{digest}"),
        &format!("apps/0198c0de-0000-7000-8000-000000000001/manifests/{digest}"),
        "layers/blobs/uploads/0198c0de-0000-7000-8000-000000000001",
        "layers/manifests/key-1",
        "layers/tags/list",
        "stacks/../layers/blobs/uploads/",
    ])
}

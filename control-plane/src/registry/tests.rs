//! The registry over real HTTP, with a gate that knows three callers.

use super::*;
use crate::admin;
use crate::app::Clock;
use crate::config::Config;
use axum::body::Bytes;
use berth_wire::digest::Digest;
use reqwest::{Client, RequestBuilder};

struct Server {
    url: String,
    client: Client,
    host: String,
    token: String,
    _dir: tempfile::TempDir,
}

async fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}");
    let config = Config::new(dir.path(), address, &url, "http://localhost:1".parse().unwrap());
    let app = App::open(config, Clock::system()).await.unwrap();
    let (_, host) = admin::host_add(&app.store, "h1", app.clock.now()).await.unwrap();
    let token = admin::token_create(&app.store, "t", app.clock.now()).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, crate::router::router(app)).await });
    Server { url, client: Client::new(), host, token, _dir: dir }
}

impl Server {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with('/') { format!("{}{path}", self.url) } else { path.to_owned() };
        let secret = if path.contains("/stacks/") { &self.token } else { &self.host };
        self.client.request(method, url).basic_auth("anybody", Some(secret))
    }

    async fn push_blob(&self, repository: &str, content: &'static [u8]) -> Digest {
        let digest = Digest::of(content);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.request(Method::POST, &path).body(content).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        digest
    }
}

fn header_of(answer: &reqwest::Response, name: &str) -> String {
    answer.headers().get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_blob_pushed_in_chunks_must_be_pulled_whole_and_in_ranges() {
    let server = server().await;
    let begun = server.request(Method::POST, "/v2/layers/blobs/uploads/").send().await.unwrap();
    assert_eq!(begun.status(), 202);
    let location = header_of(&begun, "location");
    for (range, part) in [("0-5", "hello "), ("6-10", "world")] {
        let patch = server.request(Method::PATCH, &location).header("content-range", range).body(part);
        assert_eq!(patch.send().await.unwrap().status(), 202);
    }
    let gap = server.request(Method::PATCH, &location).header("content-range", "99-99").body("x");
    assert_eq!(gap.send().await.unwrap().status(), 416);
    let status = server.request(Method::GET, &location).send().await.unwrap();
    assert_eq!((status.status().as_u16(), header_of(&status, "range")), (204, "0-10".to_owned()));
    let digest = Digest::of(b"hello world");
    let put = server.request(Method::PUT, &format!("{location}?digest={digest}"));
    assert_eq!(put.send().await.unwrap().status(), 201);

    let path = format!("/v2/layers/blobs/{digest}");
    let head = server.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!((head.status().as_u16(), header_of(&head, "content-length")), (200, "11".to_owned()));
    let whole = server.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(whole.text().await.unwrap(), "hello world");
    let part = server.request(Method::GET, &path).header("range", "bytes=6-").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.text().await.unwrap()), (206, "world".to_owned()));
}

#[tokio::test]
async fn a_wrong_digest_must_be_refused_and_nothing_stored() {
    let server = server().await;
    let digest = Digest::of(b"something else");
    let path = format!("/v2/layers/blobs/uploads/?digest={digest}");
    let answer = server.request(Method::POST, &path).body("hello").send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let body: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(body["errors"][0]["code"], "DIGEST_INVALID");
    let path = format!("/v2/layers/blobs/{digest}");
    assert_eq!(server.request(Method::HEAD, &path).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_manifest_must_be_found_by_tag_and_digest_once_its_blobs_are_there() {
    let server = server().await;
    let config = Digest::of(b"{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"x","size":2,"digest":"{config}"}},"layers":[]}}"#
    );
    let put = |reference: String| {
        let request = server.request(Method::PUT, &format!("/v2/stacks/berth-13/manifests/{reference}"));
        request
            .header("content-type", "application/vnd.oci.image.manifest.v1+json")
            .body(manifest.clone())
            .send()
    };
    assert_eq!(put("latest".into()).await.unwrap().status(), 404);
    server.push_blob("stacks/berth-13", b"{}").await;
    assert_eq!(put(Digest::of(b"other").to_string()).await.unwrap().status(), 400);
    assert_eq!(put("latest".into()).await.unwrap().status(), 201);
    let digest = Digest::of(manifest.as_bytes());
    for reference in ["latest".to_owned(), digest.to_string()] {
        let path = format!("/v2/stacks/berth-13/manifests/{reference}");
        let answer = server.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(header_of(&answer, "content-type"), "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(header_of(&answer, "docker-content-digest"), digest.to_string());
        assert_eq!(answer.text().await.unwrap(), manifest);
    }
    let tags = server.request(Method::GET, "/v2/stacks/berth-13/tags/list").send().await.unwrap();
    assert!(tags.text().await.unwrap().contains("latest"));
}

#[tokio::test]
async fn a_blob_must_be_seen_only_in_repositories_it_was_pushed_or_mounted_to() {
    let server = server().await;
    let app = "apps/0198c0de-0000-7000-8000-000000000001";
    let digest = server.push_blob("layers", b"shared").await;
    let path = format!("/v2/{app}/blobs/{digest}");
    assert_eq!(server.request(Method::HEAD, &path).send().await.unwrap().status(), 404);
    let elsewhere = format!("/v2/{app}/blobs/uploads/?mount={digest}&from=stacks/none");
    assert_eq!(server.request(Method::POST, &elsewhere).send().await.unwrap().status(), 202);
    let mount = format!("/v2/{app}/blobs/uploads/?mount={digest}&from=layers");
    assert_eq!(server.request(Method::POST, &mount).send().await.unwrap().status(), 201);
    assert_eq!(server.request(Method::HEAD, &path).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn callers_must_be_held_to_what_they_may() {
    let server = server().await;
    let send = |secret: &str, method: Method, path: &str| {
        server.client.request(method, format!("{}{path}", server.url)).bearer_auth(secret).send()
    };
    let anonymous = server.client.get(format!("{}/v2/", server.url)).send().await.unwrap();
    assert_eq!(anonymous.status(), 401);
    assert!(header_of(&anonymous, "www-authenticate").starts_with("Basic"));
    assert_eq!(send("wrong", Method::GET, "/v2/").await.unwrap().status(), 401);
    assert_eq!(send(&server.token, Method::GET, "/v2/").await.unwrap().status(), 200);
    assert_eq!(send(&server.token, Method::GET, "/v2/layers/tags/list").await.unwrap().status(), 404);
    let stack = "/v2/stacks/berth-13/blobs/uploads/";
    assert_eq!(send(&server.host, Method::POST, stack).await.unwrap().status(), 403);
    assert_eq!(send(&server.token, Method::POST, stack).await.unwrap().status(), 202);
    let other = "/v2/apps/0198c0de-0000-7000-8000-000000000001/tags/list";
    assert_eq!(send(&server.token, Method::GET, other).await.unwrap().status(), 404);
    assert_eq!(send(&server.host, Method::DELETE, "/v2/layers/manifests/x").await.unwrap().status(), 405);
}

#[tokio::test]
async fn bytes_that_arrived_before_a_broken_connection_must_count() {
    let server = server().await;
    let begun = server.request(Method::POST, "/v2/layers/blobs/uploads/").send().await.unwrap();
    let location = header_of(&begun, "location");
    let parts = vec![Ok(Bytes::from_static(b"hello ")), Err(std::io::Error::other("cable pulled"))];
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(parts));
    assert!(server.request(Method::PATCH, &location).body(body).send().await.is_err());
    // The server may notice a moment later; until then it says 409.
    let length = loop {
        let status = server.request(Method::GET, &location).send().await.unwrap();
        if status.status() == 204 {
            break header_of(&status, "range");
        }
        tokio::task::yield_now().await;
    };
    let digest = Digest::of(b"hello world");
    let rest = match length.as_str() {
        "0-5" => "world",
        "0-0" => "hello world",
        other => panic!("{other}"),
    };
    let put = server.request(Method::PUT, &format!("{location}?digest={digest}")).body(rest);
    assert_eq!(put.send().await.unwrap().status(), 201);
}

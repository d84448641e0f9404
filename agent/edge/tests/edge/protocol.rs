//! What passes through: bodies both ways as they come, upgrades, trailers, headers.

use std::collections::BTreeMap;

use berth_edge::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::instance::Instance;
use crate::rig::{Rig, backend, exchange, get, read_until, shop, soon};

async fn rig() -> (Rig, Instance) {
    let mut rig = Rig::start(Limits::default()).await;
    let instance = Instance::start("web.1").await;
    rig.agent.route(shop(vec![instance.upstream.clone()])).await;
    (rig, instance)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_must_reach_its_app_by_any_spelling_of_its_domain() {
    let (rig, instance) = rig().await;
    for host in ["shop.localhost", "SHOP.localhost:8080", "shop.localhost.", "shop.localhost.:1"] {
        let answer = get(rig.address, host, "/").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "web.1"), "{host}");
    }
    let absolute =
        b"GET http://shop.localhost/head?q=1 HTTP/1.1\r\nHost: other.localhost\r\nConnection: close\r\n\r\n";
    let answer = exchange(rig.address, absolute).await.text();
    assert!(answer.starts_with("GET /head?q=1\n") && answer.contains("host: shop.localhost"), "{answer}");
    assert_eq!(instance.requests(), 5);
    assert_eq!(get(rig.address, "absent.localhost", "/").await.header("berth-code"), Some("H40"));
    assert_eq!(get(rig.address, "[::1]:80", "/").await.header("berth-code"), Some("H40"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_must_see_who_asked_and_nothing_of_the_connection() {
    let (rig, _instance) = rig().await;
    let answer = exchange(
        rig.address,
        b"GET /head HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
          X-Forwarded-For: 10.1.1.1\r\nX-Request-Id: 01234567890123456789\r\nTE: trailers\r\n\r\n",
    )
    .await
    .text();
    let port = rig.address.port();
    for wanted in [
        "x-forwarded-for: 10.1.1.1, 127.0.0.1",
        "x-forwarded-proto: http",
        &format!("x-forwarded-port: {port}"),
        "x-request-id: 01234567890123456789",
        "te: trailers",
        "connection: TE",
    ] {
        assert!(answer.contains(wanted), "{wanted} is not in {answer}");
    }
    assert!(!answer.contains("x-hop") && !answer.contains("keep-alive"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_must_arrive_one_by_one() {
    let (rig, instance) = rig().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        instance.events.send(event).unwrap();
        // The next one is sent only after this one has arrived: nothing gathers them.
        read_until(&mut stream, event).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_must_arrive_while_it_is_still_being_sent() {
    let (rig, _instance) = rig().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head = b"POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nTE: trailers\r\n\r\n";
    stream.write_all(head).await.unwrap();
    for part in ["first", "other"] {
        stream.write_all(format!("5\r\n{part}\r\n").as_bytes()).await.unwrap();
        read_until(&mut stream, part).await;
    }
    stream.write_all(b"0\r\nx-sum: 42\r\n\r\n").await.unwrap();
    let end = read_until(&mut stream, "\r\n\r\n").await;
    assert!(end.contains("x-sum: 42"), "the trailer is not in {end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_bodies_must_pass_both_ways() {
    let (rig, _instance) = rig().await;
    let answer = get(rig.address, "shop.localhost", "/huge").await;
    assert!(answer.body.len() >= 64 << 20, "{}", answer.body.len());
    let length = 64 << 20;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head = format!("POST /count HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![b'y'; 1 << 16];
    for _ in 0..length / chunk.len() {
        stream.write_all(&chunk).await.unwrap();
    }
    read_until(&mut stream, &length.to_string()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_must_become_a_tunnel_that_counts_as_in_flight() {
    let (mut rig, instance) = rig().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head =
        b"GET /upgrade HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly";
    stream.write_all(head).await.unwrap();
    let answer = read_until(&mut stream, "early").await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("upgrade: echo"), "{answer}");
    rig.agent.route(BTreeMap::from([("shop.localhost", backend(vec![]))])).await;
    assert_eq!(rig.agent.retired.1.get(&instance.id()), Some(&1));
    stream.write_all(b"after the route is gone").await.unwrap();
    read_until(&mut stream, "after the route is gone").await;
    drop(stream);
    rig.agent.quiet(instance.id()).await;
    let log = rig.log();
    assert_eq!((log[0]["status"].as_u64(), log[0]["upgraded"].as_bool()), (Some(101), Some(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_expects_100_must_get_it_only_if_its_body_is_wanted() {
    let (rig, _instance) = rig().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head =
        "POST /count HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let interim = read_until(&mut stream, "\r\n\r\n").await;
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    stream.write_all(b"12345").await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n5").await.contains("200 OK"));
    let unknown = head.replace("shop.localhost", "absent.localhost");
    let answer = exchange(rig.address, unknown.as_bytes()).await;
    assert_eq!(answer.status, 404, "no 100 before it");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_and_kept_connections_must_be_served_in_order() {
    let (rig, instance) = rig().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let one = "GET /head?n=1 HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    let last = "GET /head?n=9 HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{one}{one}{last}").as_bytes()).await.unwrap();
    let mut all = String::new();
    soon(stream.read_to_string(&mut all)).await.unwrap();
    assert_eq!(all.matches("HTTP/1.1 200").count(), 3);
    assert!(all.find("n=1").unwrap() < all.find("n=9").unwrap());
    assert_eq!(instance.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_body_must_keep_what_its_head_says() {
    let (rig, _instance) = rig().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head =
        b"HEAD / HTTP/1.1\r\nHost: shop.localhost\r\n\r\nGET /head HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let both = read_until(&mut stream, "GET /head").await;
    let (first, rest) = both.split_once("\r\n\r\n").unwrap();
    assert!(first.contains("content-length: 5"), "{first}");
    assert!(rest.starts_with("HTTP/1.1 200"), "the next answer follows at once: {rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_must_leave_a_line_that_says_who_and_how_long() {
    let (rig, instance) = rig().await;
    get(rig.address, "shop.localhost", "/a/path?token=secret").await;
    get(rig.address, "absent.localhost", "/").await;
    let log = rig.log();
    assert_eq!(log.len(), 2);
    for (key, wanted) in [
        ("method", "GET"),
        ("host", "shop.localhost"),
        ("path", "/a/path"),
        ("client", "127.0.0.1"),
        ("app", "shop"),
        ("process", "web.1"),
        ("instance", &instance.id().to_string()),
    ] {
        assert_eq!(log[0][key], wanted, "{key}");
    }
    assert_eq!((log[0]["status"].as_u64(), log[0]["bytes"].as_u64()), (Some(200), Some(5)));
    assert!(log[0]["service_ms"].as_f64().unwrap() > 0.0 && log[0]["connect_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((&log[1]["code"], &log[1]["instance"]), (&"H40".into(), &serde_json::Value::Null));
}

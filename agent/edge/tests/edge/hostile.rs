//! Requests made to be read in two ways, or to tie the edge up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_edge::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::instance::scripted;
use crate::rig::{Rig, get, raw, shop, soon};

/// An edge before an instance that writes down every byte and answers every head.
async fn recorded(limits: Limits) -> (Rig, Arc<Mutex<Vec<u8>>>, impl Drop) {
    let mut rig = Rig::start(limits).await;
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let record = bytes.clone();
    let (upstream, serving) = scripted(move |_, mut stream| {
        let record = record.clone();
        async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                record.lock().unwrap().extend_from_slice(&buffer[..read]);
                if buffer[..read].windows(4).any(|four| four == b"\r\n\r\n") {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        }
    })
    .await;
    rig.agent.route(shop(vec![upstream])).await;
    (rig, bytes, serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_two_ways_must_not_reach_an_instance() {
    let (rig, bytes, _serving) = recorded(Limits::default()).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    let heads = [
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 5, 6\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: +5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 0x5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length : 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding : chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop.localhost\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: shop.localhost\r\nHost: other.localhost\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: shop.localhost\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: shop.localhost@evil\r\n\r\n",
        "CONNECT shop.localhost:80 HTTP/1.1\r\nHost: shop.localhost\r\n\r\n",
        "GET / HTTP/3.9\r\nHost: shop.localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX\0Y: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX: a\rb\r\n\r\n",
    ];
    for head in heads {
        let answer = raw(rig.address, format!("{head}{smuggled}").as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "405", "505"].contains(&status), "{head:?} got {answer:?}");
        assert_eq!(String::from_utf8_lossy(&bytes.lock().unwrap()), "", "{head:?} reached the instance");
    }
    assert_eq!(get(rig.address, "shop.localhost", "/").await.text(), "ok", "and it still serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_framings_at_once_must_become_one_and_end_the_connection() {
    for head in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let (rig, bytes, _serving) = recorded(Limits::default()).await;
        let body = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
        let all = raw(
            rig.address,
            format!("POST / HTTP/1.1\r\nHost: shop.localhost\r\n{head}\r\n\r\n{body}").as_bytes(),
        )
        .await;
        assert_eq!(String::from_utf8_lossy(&all).matches("HTTP/1.1").count(), 1, "{head}");
        let bytes = String::from_utf8_lossy(&bytes.lock().unwrap()).to_ascii_lowercase();
        assert!(!bytes.contains("smuggled"), "{bytes}");
        assert!(!(bytes.contains("content-length") && bytes.contains("transfer-encoding")), "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunk_sizes_that_overflow_or_trail_must_not_desynchronise() {
    let (rig, bytes, _serving) = recorded(Limits::default()).await;
    for body in [
        "fffffffffffffffff\r\nx",
        "-1\r\nx",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
    ] {
        let head = "POST /chunks HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
        raw(rig.address, format!("{head}{body}{smuggled}").as_bytes()).await;
    }
    let bytes = String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned();
    assert!(!bytes.contains("GET /smuggled"), "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_must_be_refused_with_its_size() {
    let limits = Limits { body_bytes_max: 1_000, ..Limits::default() };
    let (rig, _bytes, _serving) = recorded(limits).await;
    let announced =
        b"POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1001\r\nConnection: close\r\n\r\n";
    let answer = String::from_utf8(raw(rig.address, announced).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("H41"), "{answer}");
    let long = format!("GET / HTTP/1.1\r\nHost: shop.localhost\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let answer = String::from_utf8(raw(rig.address, long.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\nHost: shop.localhost\r\n{}\r\n", "a: b\r\n".repeat(200));
    let answer = String::from_utf8(raw(rig.address, many.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_must_be_cut() {
    let limits = Limits { head_read_max: Duration::from_millis(200), ..Limits::default() };
    let (rig, _bytes, _serving) = recorded(limits).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-Slow: ").await.unwrap();
    let mut all = Vec::new();
    let _ = soon(stream.read_to_end(&mut all)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_must_not_hold_an_instance() {
    let limits = Limits { silence_max: Duration::from_millis(300), ..Limits::default() };
    let mut rig = Rig::start(limits).await;
    let instance = crate::instance::Instance::start("web.1").await;
    rig.agent.route(shop(vec![instance.upstream.clone()])).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"GET /huge HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.unwrap();
    soon(async {
        while instance.requests() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    rig.agent.route(shop(vec![])).await;
    rig.agent.quiet(instance.id()).await;
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_cap_must_be_told_so() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let (rig, _bytes, _serving) = recorded(limits).await;
    let held =
        [TcpStream::connect(rig.address).await.unwrap(), TcpStream::connect(rig.address).await.unwrap()];
    let mut third = TcpStream::connect(rig.address).await.unwrap();
    let mut all = String::new();
    soon(third.read_to_string(&mut all)).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 503") && all.contains("H99"), "{all}");
    let (_, body) = all.split_once("\r\n\r\n").unwrap();
    assert!(all.contains(&format!("Content-Length: {}\r\n", body.len())), "{all}");
    drop(held);
    soon(async {
        while rig.edge.stats.connections.load(std::sync::atomic::Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(get(rig.address, "shop.localhost", "/").await.status, 200);
}

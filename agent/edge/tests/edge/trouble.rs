//! Instances that misbehave and clients that leave: each with its code, nobody else disturbed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use berth_edge::Limits;
use berth_wire::code::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::instance::{Instance, scripted, upstream};
use crate::rig::{Rig, exchange, get, raw, read_until, shop, soon};

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn hasty() -> Limits {
    Limits {
        first_byte_max: Duration::from_millis(300),
        silence_max: Duration::from_millis(600),
        ..Limits::default()
    }
}

/// An address where nobody listens.
async fn nobody() -> std::net::SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_must_go_to_another_instance_whatever_the_method() {
    let mut rig = Rig::start(Limits::default()).await;
    let alive = Instance::start("alive").await;
    let dead = upstream(nobody().await, "web.2");
    rig.agent.route(shop(vec![dead.clone(), alive.upstream.clone()])).await;
    for _ in 0..10 {
        let post = b"POST /count HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        let answer = exchange(rig.address, post).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "3"));
    }
    assert_eq!(alive.requests(), 10);
    rig.agent.route(shop(vec![dead])).await;
    let answer = get(rig.address, "shop.localhost", "/").await;
    assert_eq!((answer.status, answer.header("berth-code")), (502, Some("H21")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_closed_must_be_replaced_unseen_for_what_may_be_repeated() {
    let mut rig = Rig::start(Limits::default()).await;
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    // Each connection answers once, reads the next request, and closes without a word.
    let (upstream, _serving) = scripted(move |_, mut stream| {
        let asked = counted.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(OK).await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            asked.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    rig.agent.route(shop(vec![upstream])).await;
    for _ in 0..5 {
        assert_eq!(get(rig.address, "shop.localhost", "/").await.status, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 4, "each but the first met a connection that closes");
    let post = b"POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    let answer = exchange(rig.address, post).await;
    assert_eq!((answer.status, answer.header("berth-code")), (502, Some("H13")), "may have been done");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_before_the_first_byte_must_be_h12() {
    let mut rig = Rig::start(hasty()).await;
    let instance = Instance::start("web.1").await;
    rig.agent.route(shop(vec![instance.upstream.clone()])).await;
    let answer = get(rig.address, "shop.localhost", "/wait").await;
    assert_eq!((answer.status, answer.header("berth-code")), (504, Some("H12")));
    assert_eq!(rig.agent.stats().await.errors["H12"], 1);
    assert_eq!(rig.agent.stats().await.instances[&instance.id()].in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_in_the_middle_must_cut_the_response_as_h15() {
    let mut rig = Rig::start(hasty()).await;
    let instance = Instance::start("web.1").await;
    rig.agent.route(shop(vec![instance.upstream.clone()])).await;
    instance.events.send("data: only\n\n").unwrap();
    let all = raw(rig.address, b"GET /events HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    let all = String::from_utf8(all).unwrap();
    assert!(all.contains("data: only") && !all.ends_with("0\r\n\r\n"), "must not look complete: {all}");
    assert_eq!(rig.log()[0]["code"], "H15");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_take_longer_than_the_first_byte_but_must_not_stall() {
    let mut rig = Rig::start(hasty()).await;
    let instance = Instance::start("web.1").await;
    rig.agent.route(shop(vec![instance.upstream.clone()])).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head = b"POST /count HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 6\r\n\r\n";
    stream.write_all(head).await.unwrap();
    // Slower in all than the 300 ms to the first byte; this test is about time, so it takes some.
    let mut every = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..6 {
        every.tick().await;
        stream.write_all(b"x").await.unwrap();
    }
    assert!(read_until(&mut stream, "\r\n\r\n6").await.starts_with("HTTP/1.1 200"));
    let mut stalled = TcpStream::connect(rig.address).await.unwrap();
    stalled.write_all(head).await.unwrap();
    stalled.write_all(b"xx").await.unwrap();
    let answer = read_until(&mut stalled, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("H15"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_breaks_off_must_not_look_complete() {
    let mut rig = Rig::start(Limits::default()).await;
    let (upstream, _serving) = scripted(|connection, mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let said: &[u8] = match connection {
            0 => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            1 => b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
            2 => b"",
            3 => b"SSH-2.0-OpenSSH_9.9\r\n",
            _ => b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        };
        stream.write_all(said).await.unwrap();
    })
    .await;
    rig.agent.route(shop(vec![upstream])).await;
    let cut = String::from_utf8(raw(rig.address, ASK).await).unwrap();
    assert!(cut.contains("hello") && !cut.contains("\r\n0\r\n"), "{cut}");
    let cut = String::from_utf8(raw(rig.address, ASK).await).unwrap();
    assert!(cut.contains("50") && cut.ends_with("hello"), "{cut}");
    for what in ["nothing", "another protocol", "an upgrade nobody asked for"] {
        let answer = exchange(rig.address, ASK).await;
        assert_eq!((answer.status, answer.header("berth-code")), (502, Some("H13")), "{what}");
    }
    let codes: Vec<_> = rig.log().iter().map(|line| line["code"].clone()).collect();
    assert_eq!(codes, ["H13"; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_must_end_its_request_at_the_instance() {
    let mut rig = Rig::start(Limits::default()).await;
    let (seen, mut sees) = tokio::sync::mpsc::unbounded_channel();
    let (upstream, _serving) = scripted(move |_, mut stream| {
        let seen = seen.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            seen.send("asked").unwrap();
            // The edge hangs up: an end or a reset.
            let _ = stream.read(&mut [0; 1]).await;
            seen.send("left").unwrap();
        }
    })
    .await;
    let id = upstream.instance;
    rig.agent.route(shop(vec![upstream])).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.unwrap();
    assert_eq!(soon(sees.recv()).await, Some("asked"));
    rig.agent.route(shop(vec![])).await;
    assert_eq!(rig.agent.retired.1[&id], 1);
    drop(stream);
    assert_eq!(soon(sees.recv()).await, Some("left"));
    rig.agent.quiet(id).await;
    assert_eq!(rig.log()[0]["status"], 499);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_for_no_instance_must_be_the_agents() {
    let mut rig = Rig::start(Limits::default()).await;
    let answer = get(rig.address, "shop.localhost", "/").await;
    assert_eq!((answer.status, answer.header("berth-code")), (503, Some("H99")), "no table yet");
    for code in [None, Some(Code::H10), Some(Code::H20)] {
        let mut table = shop(vec![]);
        table.get_mut("shop.localhost").unwrap().absent = code;
        rig.agent.route(table).await;
        let ask = b"GET / HTTP/1.1\r\nHost: shop.localhost\r\nAccept: application/json\r\nConnection: close\r\n\r\n";
        let answer = exchange(rig.address, ask).await;
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["code"], code.unwrap_or(Code::H14).as_str());
        assert_eq!(problem["request_id"], answer.header("x-request-id").unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busier_instance_must_not_get_the_next_request() {
    let mut rig = Rig::start(Limits::default()).await;
    let (a, b) = (Instance::start("a").await, Instance::start("b").await);
    rig.agent.route(shop(vec![a.upstream.clone(), b.upstream.clone()])).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.unwrap();
    soon(async {
        while a.requests() + b.requests() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (busy, free) = if a.requests() == 1 { (&a, &b) } else { (&b, &a) };
    for _ in 0..10 {
        get(rig.address, "shop.localhost", "/").await;
    }
    assert_eq!((busy.requests(), free.requests()), (1, 10));
    // Equals take turns.
    busy.gate.add_permits(1);
    read_until(&mut stream, "waited").await;
    for _ in 0..10 {
        get(rig.address, "shop.localhost", "/").await;
    }
    assert_eq!((busy.requests(), free.requests()), (6, 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_ends_with_the_connection_must_arrive_whole() {
    let mut rig = Rig::start(Limits::default()).await;
    let (upstream, _serving) = scripted(|_, mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await.unwrap();
    })
    .await;
    rig.agent.route(shop(vec![upstream])).await;
    let all = String::from_utf8(raw(rig.address, ASK).await).unwrap();
    assert!(all.contains("until the end"), "{all}");
    let old = b"GET / HTTP/1.0\r\nHost: shop.localhost\r\n\r\n";
    let answer = exchange(rig.address, old).await;
    assert_eq!(answer.text(), "until the end", "an HTTP/1.0 client knows no chunks");
}

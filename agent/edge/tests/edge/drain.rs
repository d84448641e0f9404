//! Changing routes under load: nothing fails, nothing arrives late, a drain is seen to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use berth_edge::Limits;
use berth_wire::edge::{FromEdge, Table, ToEdge};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::instance::Instance;
use crate::rig::{Rig, backend, get, read_until, shop, soon};

/// Asks over kept connections until told to stop; counts answers, and failures of any kind.
async fn load(to: std::net::SocketAddr, stop: Arc<AtomicBool>, done: Arc<AtomicU32>) -> Vec<String> {
    let mut failures = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(to).await.unwrap();
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        for n in 0..100 {
            // A method that may not be repeated: a failure cannot hide behind a retry.
            let method = if n % 2 == 0 { "POST" } else { "GET" };
            let request = Request::builder()
                .method(method)
                .uri("/")
                .header("host", "shop.localhost")
                .body(Empty::<&[u8]>::new());
            match sender.send_request(request.unwrap()).await {
                Ok(response) if response.status() == 200 => {
                    response.into_body().collect().await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(response) => failures.push(format!("{:?}", response)),
                Err(error) => failures.push(error.to_string()),
            }
        }
    }
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_swaps_under_load_must_fail_no_request_and_send_none_late() {
    let mut rig = Rig::start(Limits::default()).await;
    let mut current = Instance::start("first").await;
    rig.agent.route(shop(vec![current.upstream.clone()])).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let clients: Vec<_> =
        (0..8).map(|_| tokio::spawn(load(rig.address, stop.clone(), done.clone()))).collect();
    for swap in 0..200 {
        let next = Instance::start("next").await;
        let both = vec![current.upstream.clone(), next.upstream.clone()];
        rig.agent.route(shop(both)).await;
        rig.agent.route(shop(vec![next.upstream.clone()])).await;
        rig.agent.quiet(current.id()).await;
        current.quiet.store(true, Ordering::SeqCst);
        // Each serves some before it goes.
        let wanted = done.load(Ordering::Relaxed) + 10;
        soon(async {
            while done.load(Ordering::Relaxed) < wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(current.late.load(Ordering::SeqCst), 0, "swap {swap}: a request after it was quiet");
        // Stops listening and drops its connections, like an instance that is killed.
        drop(std::mem::replace(&mut current, next));
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(client.await.unwrap(), Vec::<String>::new());
    }
    let done = done.load(Ordering::Relaxed);
    assert!(done > 3_000, "only {done} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_must_wait_for_a_slow_response() {
    let mut rig = Rig::start(Limits::default()).await;
    let (old, new) = (Instance::start("old").await, Instance::start("new").await);
    rig.agent.route(shop(vec![old.upstream.clone()])).await;
    let address = rig.address;
    let slow = tokio::spawn(async move { get(address, "shop.localhost", "/wait").await });
    soon(async {
        while old.requests() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let number = rig.agent.route(shop(vec![new.upstream.clone()])).await;
    assert_eq!(rig.agent.retired, (number, BTreeMap::from([(old.id(), 1)])));
    assert_eq!(get(rig.address, "shop.localhost", "/").await.text(), "new");
    // Another table does not make the count forgotten.
    let other = BTreeMap::from([
        ("shop.localhost", backend(vec![new.upstream.clone()])),
        ("other.localhost", backend(vec![])),
    ]);
    rig.agent.route(other).await;
    assert_eq!(rig.agent.retired.1.get(&old.id()), Some(&1));
    assert_eq!(rig.agent.stats().await.instances[&old.id()].in_flight, 1);
    old.gate.add_permits(1);
    assert_eq!(slow.await.unwrap().text(), "waited");
    rig.agent.quiet(old.id()).await;
    assert_eq!(rig.agent.stats().await.instances[&old.id()].by_class["2xx"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_a_retired_instance_must_be_closed_at_once() {
    let mut rig = Rig::start(Limits::default()).await;
    let (closed, mut closes) = tokio::sync::mpsc::unbounded_channel();
    let (upstream, _serving) = crate::instance::scripted(move |_, mut stream| {
        let closed = closed.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            let end = stream.read(&mut [0; 1]).await.unwrap();
            closed.send(end).unwrap();
        }
    })
    .await;
    rig.agent.route(shop(vec![upstream])).await;
    assert_eq!(get(rig.address, "shop.localhost", "/").await.text(), "ok");
    assert!(closes.try_recv().is_err(), "kept for the next request");
    rig.agent.route(shop(vec![])).await;
    assert_eq!(soon(closes.recv()).await, Some(0));
    assert_eq!(get(rig.address, "shop.localhost", "/").await.header("berth-code"), Some("H14"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_table_must_be_ignored_and_the_same_one_acknowledged_again() {
    let mut rig = Rig::start(Limits::default()).await;
    let instance = Instance::start("web.1").await;
    rig.agent.number = 41;
    let number = rig.agent.route(shop(vec![instance.upstream.clone()])).await;
    rig.agent.send(&ToEdge::Table(Table { number: 7, domains: BTreeMap::new() })).await;
    rig.agent.settle(number).await;
    assert_eq!(get(rig.address, "shop.localhost", "/").await.status, 200);
    rig.agent.number = number - 1;
    rig.agent.route(shop(vec![instance.upstream.clone()])).await;
    let mut second = crate::rig::Agent::connect(rig.dir.path()).await;
    assert_eq!(second.next().await, FromEdge::Ack { number }, "told to whoever connects");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_domains_must_be_swapped_and_served() {
    let mut rig = Rig::start(Limits::default()).await;
    let instances = [Instance::start("a").await, Instance::start("b").await];
    let names: Vec<String> = (0..10_000).map(|n| format!("app-{n}.localhost")).collect();
    for round in 0..3 {
        let table = names
            .iter()
            .enumerate()
            .map(|(n, name)| (name.as_str(), backend(vec![instances[(n + round) % 2].upstream.clone()])))
            .collect();
        rig.agent.route(table).await;
        for n in [0, 1, 5_000, 9_999] {
            let wanted = ["a", "b"][(n + round) % 2];
            assert_eq!(get(rig.address, &names[n], "/").await.text(), wanted);
        }
    }
}

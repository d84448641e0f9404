//! Requests from outside: single ones, and a steady stream across a change that counts every failure.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::installation::{Installation, eventually};

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status; 0 if there was no answer at all.
    pub status: u16,
    /// The body, or the error.
    pub body: String,
}

fn client(berth: &Installation, host: &str) -> reqwest::blocking::Client {
    reqwest::blocking::Client::builder()
        .resolve(host, berth.edge)
        .no_proxy()
        .timeout(Duration::from_secs(40))
        .build()
        .unwrap_or_else(|e| panic!("an HTTP client: {e}"))
}

fn ask(client: &reqwest::blocking::Client, url: &str) -> Answer {
    match client.get(url).send().and_then(|r| Ok((r.status().as_u16(), r.text()?))) {
        Ok((status, body)) => Answer { status, body },
        Err(error) => Answer { status: 0, body: format!("{error:?}") },
    }
}

/// The URL of a path of an app at this installation's edge.
pub fn url(berth: &Installation, app: &str, path: &str) -> String {
    format!("http://{app}.localhost:{}{path}", berth.edge.port())
}

/// One GET through the edge.
pub fn get(berth: &Installation, app: &str, path: &str) -> Answer {
    ask(&client(berth, &format!("{app}.localhost")), &url(berth, app, path))
}

/// Asks until the body contains the text, at most 30 s.
#[track_caller]
pub fn body_must_come_to_have(berth: &Installation, app: &str, path: &str, text: &str) {
    let mut last = None;
    let came = eventually(Duration::from_secs(30), || {
        let answer = get(berth, app, path);
        let has = answer.status == 200 && answer.body.contains(text);
        last = Some(answer);
        has
    });
    assert!(came, "{app}{path} never had {text:?}; last: {last:?}");
}

/// A request that was not answered with 200.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When it was sent.
    pub sent: Instant,
    /// When it had failed.
    pub failed: Instant,
    /// What came instead.
    pub answer: Answer,
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    sent: AtomicU64,
    failed: Mutex<Vec<Failure>>,
}

/// A stream of requests, several at once, until it is stopped.
pub struct Traffic {
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

/// Most requests of one stream.
const REQUESTS_MAX: u64 = 2_000_000;

impl Traffic {
    /// Starts `streams` loops of GETs, each on its own kept-alive connection, as fast as they are answered.
    pub fn start(berth: &Installation, app: &str, path: &str, streams: usize) -> Self {
        Self::start_paced(berth, app, path, streams, Duration::ZERO)
    }

    /// The same with a pause after each answer, for tests that are about something else than speed.
    pub fn start_paced(berth: &Installation, app: &str, path: &str, streams: usize, pause: Duration) -> Self {
        let tally = Arc::new(Tally::default());
        let url = url(berth, app, path);
        let threads = (0..streams).map(|_| {
            let (tally, url) = (Arc::clone(&tally), url.clone());
            let client = client(berth, &format!("{app}.localhost"));
            std::thread::spawn(move || {
                let mut sent_here = 0;
                while !tally.stop.load(Ordering::Relaxed) && sent_here < REQUESTS_MAX {
                    let sent = Instant::now();
                    let answer = ask(&client, &url);
                    sent_here += 1;
                    tally.sent.fetch_add(1, Ordering::Relaxed);
                    if answer.status != 200 {
                        let failure = Failure { sent, failed: Instant::now(), answer };
                        tally.failed.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                    }
                    std::thread::sleep(pause);
                }
            })
        });
        Self { threads: threads.collect(), tally }
    }

    /// Requests that were answered in any way, until now.
    pub fn sent(&self) -> u64 {
        self.tally.sent.load(Ordering::Relaxed)
    }

    /// Every request that was not answered with 200, until now.
    pub fn failures(&self) -> Vec<Failure> {
        self.tally.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops it; answers how many requests were sent and every one that was not answered with 200.
    pub fn stop(self) -> (u64, Vec<Failure>) {
        self.tally.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap_or_else(|_| panic!("a traffic thread panicked"));
        }
        let failed = std::mem::take(&mut *self.tally.failed.lock().unwrap_or_else(PoisonError::into_inner));
        (self.tally.sent.load(Ordering::Relaxed), failed)
    }

    /// Stops it and wants that every request was answered with 200, and that there were some: what happened may have been quicker.
    #[track_caller]
    pub fn must_not_have_failed(self) {
        eventually(Duration::from_secs(10), || self.tally.sent.load(Ordering::Relaxed) > 10);
        let (sent, failed) = self.stop();
        assert!(failed.is_empty(), "{} of {sent} requests failed, first: {:?}", failed.len(), failed.first());
        assert!(sent > 10, "only {sent} requests were sent: that proves nothing");
    }
}

//! Requests from outside: single ones, and a steady stream across a change that counts every failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

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

/// A stream of requests, several at once, until it is stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(u64, Vec<Answer>)>>,
}

impl Traffic {
    /// Starts `streams` loops of GETs, each on its own kept-alive connection. Bounded to 200,000 requests each.
    pub fn start(berth: &Installation, app: &str, path: &str, streams: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let url = url(berth, app, path);
        let threads = (0..streams)
            .map(|_| {
                let (stop, url) = (Arc::clone(&stop), url.clone());
                let client = client(berth, &format!("{app}.localhost"));
                std::thread::spawn(move || {
                    let (mut sent, mut failed) = (0, Vec::new());
                    while !stop.load(Ordering::Relaxed) && sent < 200_000 {
                        let answer = ask(&client, &url);
                        sent += 1;
                        if answer.status != 200 {
                            failed.push(answer);
                        }
                    }
                    (sent, failed)
                })
            })
            .collect();
        Self { stop, threads }
    }

    /// Stops it; answers how many requests were sent and every one that was not answered with 200.
    pub fn stop(self) -> (u64, Vec<Answer>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = (0, Vec::new());
        for thread in self.threads {
            let (sent, failed) = thread.join().unwrap_or_else(|_| panic!("a traffic thread panicked"));
            all.0 += sent;
            all.1.extend(failed);
        }
        all
    }

    /// Stops it and wants that every request was answered with 200, and that there were some.
    #[track_caller]
    pub fn must_not_have_failed(self) {
        let (sent, failed) = self.stop();
        assert!(failed.is_empty(), "{} of {sent} requests failed, first: {:?}", failed.len(), failed.first());
        assert!(sent > 10, "only {sent} requests were sent: that proves nothing");
    }
}

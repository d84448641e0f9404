//! Counters: per instance and of the edge itself. Lock-free where every request passes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::edge::{LATENCY_BUCKETS_SECONDS, RequestStats};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Requests of one instance.
#[derive(Default)]
pub struct InstanceCounters {
    by_class: [AtomicU64; 5],
    buckets: [AtomicU64; 12],
    micros: AtomicU64,
}

impl InstanceCounters {
    /// One request has ended.
    pub fn record(&self, status: u16, latency: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.by_class[class].fetch_add(1, Ordering::Relaxed);
        let seconds = latency.as_secs_f64();
        let bucket = LATENCY_BUCKETS_SECONDS.iter().position(|bound| seconds <= *bound);
        self.buckets[bucket.unwrap_or(LATENCY_BUCKETS_SECONDS.len())].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// As the agent reads it.
    pub fn snapshot(&self, in_flight: u32) -> RequestStats {
        let mut by_class = BTreeMap::new();
        for (class, count) in CLASSES.iter().zip(&self.by_class) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                by_class.insert((*class).to_owned(), count);
            }
        }
        let mut latency_buckets = [0; 12];
        for (to, from) in latency_buckets.iter_mut().zip(&self.buckets) {
            *to = from.load(Ordering::Relaxed);
        }
        let latency_sum_seconds = Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64();
        RequestStats { by_class, latency_buckets, latency_sum_seconds, in_flight }
    }
}

/// What belongs to no instance.
#[derive(Default)]
pub struct EdgeCounters {
    /// Connections open now.
    pub connections: AtomicU64,
    errors: Mutex<BTreeMap<Code, u64>>,
}

impl EdgeCounters {
    /// The edge answered by itself.
    pub fn error(&self, code: Code) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(code).or_default() += 1;
    }

    /// Answers by code.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.iter().map(|(code, count)| (code.to_string(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_must_fall_into_their_buckets() {
        let counters = InstanceCounters::default();
        for (status, millis) in [(200, 5), (200, 6), (404, 10_000), (502, 10_001), (101, 0)] {
            counters.record(status, Duration::from_millis(millis));
        }
        let stats = counters.snapshot(3);
        assert_eq!(stats.latency_buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(stats.by_class["2xx"], 2);
        assert_eq!(stats.by_class["5xx"], 1);
        assert!((stats.latency_sum_seconds - 20.012).abs() < 1e-9);
    }
}

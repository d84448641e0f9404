//! How many lines a second a container may log: a bucket that holds one second's worth and fills steadily.

use std::time::Duration;

/// The bucket.
pub struct LineRate {
    lines_per_second: u32,
    /// In millionths of a line, so that a fraction of a second fills a fraction.
    level: u64,
    filled_at: Option<Duration>,
}

const LINE: u64 = 1_000_000;

impl LineRate {
    /// A full bucket.
    pub fn new(lines_per_second: u32) -> Self {
        Self { lines_per_second, level: u64::from(lines_per_second) * LINE, filled_at: None }
    }

    /// The rate.
    pub fn lines_per_second(&self) -> u32 {
        self.lines_per_second
    }

    /// Another rate from now on; a bucket that became smaller overflows, one that became larger is not full.
    pub fn set(&mut self, lines_per_second: u32) {
        self.lines_per_second = lines_per_second;
        self.level = self.level.min(u64::from(lines_per_second) * LINE);
    }

    /// Takes one line if there is room for it now.
    pub fn take(&mut self, now: Duration) -> bool {
        let full = u64::from(self.lines_per_second) * LINE;
        let passed = self.filled_at.map_or(Duration::ZERO, |before| now.saturating_sub(before));
        // A second fills the bucket: more than that cannot matter, and bounding it rules out an overflow.
        let passed_us = passed.min(Duration::from_secs(1)).as_micros() as u64;
        self.level = full.min(self.level + passed_us * u64::from(self.lines_per_second));
        self.filled_at = Some(now);
        let taken = self.level >= LINE;
        if taken {
            self.level -= LINE;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_must_give_its_rate_and_no_more() {
        let mut rate = LineRate::new(10);
        let start = Duration::from_secs(100);
        assert_eq!((0..100).filter(|_| rate.take(start)).count(), 10);
        let half_a_second_later = start + Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| rate.take(half_a_second_later)).count(), 5);
        let an_hour_later = start + Duration::from_secs(3_600);
        assert_eq!((0..100).filter(|_| rate.take(an_hour_later)).count(), 10);
    }

    #[test]
    fn a_changed_rate_must_hold_at_once() {
        let mut rate = LineRate::new(10);
        let start = Duration::from_secs(100);
        rate.set(3);
        assert_eq!((0..100).filter(|_| rate.take(start)).count(), 3);
        rate.set(20);
        let a_second_later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| rate.take(a_second_later)).count(), 20);
    }

    #[test]
    fn a_clock_set_back_must_not_stop_the_lines_for_good() {
        let mut rate = LineRate::new(1);
        assert!(rate.take(Duration::from_secs(1_000)));
        assert!(!rate.take(Duration::from_secs(10)));
        assert!(rate.take(Duration::from_secs(11)));
    }
}

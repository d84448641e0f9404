//! How long each step of a start takes, for `berth-agent run --json` and the benches. Only measured here: what the steps are is
//! `start`'s business.

use std::time::Instant;

/// One step of a start that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct StepTime {
    /// What was done, as people read it.
    pub step: &'static str,
    /// How long it took, in microseconds of wall clock.
    pub us: u64,
}

/// The steps so far. Each lasts from the end of the one before it, so that together they are the whole time.
#[derive(Debug)]
pub(super) struct Steps {
    last: Instant,
    done: Vec<StepTime>,
}

impl Steps {
    pub(super) fn begin() -> Self {
        Self { last: Instant::now(), done: Vec::new() }
    }

    pub(super) fn done(&mut self, step: &'static str) {
        let now = Instant::now();
        let us = u64::try_from((now - self.last).as_micros()).unwrap_or(u64::MAX);
        self.done.push(StepTime { step, us });
        self.last = now;
    }

    pub(super) fn all(self) -> Vec<StepTime> {
        self.done
    }
}

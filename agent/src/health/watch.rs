//! Checks one instance for as long as it runs, telling each change of verdict. Boots are checked often, well instances seldom.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::image::HealthCheck;
use berth_wire::report::Trouble;

use super::probe::{Unwell, probe};
use crate::reconcile::machine::AsyncTell;
use crate::reconcile::record::Health;

/// The first pauses of a boot: a small app binds within 50 ms, and each one is a part of a deploy that somebody waits for.
const BOOT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest: a boot of 60 s costs about 120 connections.
const BOOT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Failures in a row after which a well instance is not well: one lost check under load must not take it out of the routes.
pub const FAILURES_UNTIL_DOWN: u32 = 3;

/// What the checks have found so far. Pure, so that its rule can be read and tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// The verdict.
    pub health: Health,
    failures: u32,
}

impl Tally {
    /// Starts from what is known.
    pub fn new(health: Health) -> Self {
        Self { health, failures: 0 }
    }

    /// Counts one check; says the new verdict if it changed.
    pub fn count(&mut self, passed: bool) -> Option<Health> {
        let before = self.health;
        if passed {
            self.failures = 0;
            self.health = Health::Up;
        } else {
            self.failures = self.failures.saturating_add(1);
            if before == Health::Up && self.failures >= FAILURES_UNTIL_DOWN {
                self.health = Health::Down;
            }
        }
        (self.health != before).then_some(self.health)
    }

    /// The pause before the next check, after `tries` of the boot.
    pub fn pause(&self, check: &HealthCheck, tries: u32) -> Duration {
        match self.health {
            Health::Unknown => (BOOT_PAUSE_MIN * 2u32.pow(tries.min(8))).min(BOOT_PAUSE_MAX),
            _ => Duration::from_secs(check.interval_seconds.max(1).into()),
        }
    }
}

/// Checks for ever.
pub async fn watch(
    address: SocketAddr,
    check: &HealthCheck,
    label: &str,
    from: Health,
    tell: impl AsyncTell,
) -> Infallible {
    let mut tally = Tally::new(from);
    let mut tries = 0;
    loop {
        let outcome = probe(address, check).await;
        if let Some(health) = tally.count(outcome.is_ok()) {
            let trouble = outcome.err().map(|unwell| trouble(label, &unwell));
            tell.tell(health, trouble).await;
        }
        tokio::time::sleep(tally.pause(check, tries)).await;
        tries = tries.saturating_add(1);
    }
}

fn trouble(label: &str, unwell: &Unwell) -> Trouble {
    let message = format!(
        "{label} failed {FAILURES_UNTIL_DOWN} health checks in a row: {unwell}; it gets no requests until one passes"
    );
    Trouble { code: Code::R17, message, log_tail: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_must_not_take_a_well_instance_out() {
        let mut tally = Tally::new(Health::Up);
        let told: Vec<_> =
            [false, false, true, false, false, false, false, true].map(|p| tally.count(p)).to_vec();
        assert_eq!(told, [None, None, None, None, None, Some(Health::Down), None, Some(Health::Up)]);
    }

    #[test]
    fn a_booting_instance_must_be_checked_soon_and_a_well_one_at_its_interval() {
        let (check, booting) = (HealthCheck::default(), Tally::new(Health::Unknown));
        assert_eq!(booting.pause(&check, 0), BOOT_PAUSE_MIN);
        assert_eq!(booting.pause(&check, 30), BOOT_PAUSE_MAX);
        assert_eq!(Tally::new(Health::Up).pause(&check, 0), Duration::from_secs(5));
    }
}

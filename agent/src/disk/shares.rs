//! How the pool is divided, and how much each space may write at the moment. Pure.
//!
//! One pool holds image layers and every instance's own files. Quotas promise more than it has (the sum of maxima is bounded by
//! nothing: an idle app needs none of it), so whoever writes to the max must not take what others need:
//!
//! ```text
//! spare    1/16, at least 1 GiB or a quarter   nobody's: metadata, and chunks that btrfs gives to data before they are full;
//!                                               without it a full pool cannot make even an empty subvolume
//! layers   3/8 of the rest                      a limit on the quota group of all layers: an import finds room whatever apps write
//! floors   3/8                                  what placement may promise (`HostFacts::disk_reservable_bytes`)
//! burst    2/8                                  what instances hold above their floors, first come first served
//! ```
//! Bytes under floors never exceed `floors` (placement sees to that), bytes above them never exceed `burst` (the limits below), so
//! an instance that is under its floor can always write up to it, and a new one always starts. btrfs has no quota for
//! "what is above a floor": each space's limit is therefore its floor or what it holds, whichever is more, and a quarter of what is
//! left of the burst. A quarter, because limits are set anew only every so often: four spaces can write as fast as they like in
//! between and the sum holds. More than four that begin at once may together go over once, for which half of the spare is set aside
//! before the limit on the group of all instances stops them.

use berth_wire::quota::MIB;

const SPARE_BYTES_MIN: u64 = 1_024 * MIB;
/// See the module's header.
const WRITERS_AT_ONCE: u64 = 4;

/// The parts of a pool, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// All of it.
    pub pool_bytes: u64,
    /// What layers may take; none: all of it.
    pub layers_bytes: Option<u64>,
    /// What floors may reserve.
    pub floors_bytes: u64,
    /// What instances may hold above their floors; none: whatever their maxima allow.
    pub burst_bytes: Option<u64>,
}

impl Shares {
    /// For a host with many instances.
    pub fn divided(pool_bytes: u64) -> Self {
        let spare = (pool_bytes / 16).max(SPARE_BYTES_MIN.min(pool_bytes / 4));
        let rest = pool_bytes - spare;
        let layers = rest / 8 * 3;
        Self {
            pool_bytes,
            layers_bytes: Some(layers),
            floors_bytes: layers,
            burst_bytes: Some(rest - 2 * layers),
        }
    }

    /// For one container that has the pool to itself.
    pub fn undivided(pool_bytes: u64) -> Self {
        Self { pool_bytes, layers_bytes: None, floors_bytes: pool_bytes, burst_bytes: None }
    }

    /// The limit on all instances together. Half of the spare belongs to it, for those that went over before limits were set anew.
    pub(super) fn instances_bytes(&self) -> Option<u64> {
        let (layers, burst) = (self.layers_bytes?, self.burst_bytes?);
        let spare = self.pool_bytes - layers - self.floors_bytes - burst;
        Some(self.floors_bytes + burst + spare / 2)
    }
}

/// One space: what it has and what was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub used: u64,
    pub floor: u64,
    pub max: u64,
}

impl Space {
    fn reserved(&self) -> u64 {
        self.used.max(self.floor)
    }
}

/// What is left of the burst beside these.
pub(super) fn burst_left<'a>(spaces: impl Iterator<Item = &'a Space>, burst_bytes: u64) -> u64 {
    let above: u64 = spaces.map(|space| space.used.saturating_sub(space.floor)).sum();
    burst_bytes.saturating_sub(above)
}

/// How far a space may grow until limits are set anew.
pub(super) fn limit(space: &Space, burst_left: u64) -> u64 {
    space.max.min(space.reserved().saturating_add(burst_left / WRITERS_AT_ONCE))
}

/// Whether every limit is its max, whoever holds these bytes: spares looking at each.
pub(super) fn all_at_max(used_together: u64, max_largest: u64, burst_bytes: u64) -> bool {
    burst_bytes.saturating_sub(used_together) / WRITERS_AT_ONCE >= max_largest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space(used: u64, floor: u64, max: u64) -> Space {
        Space { used, floor, max }
    }

    #[test]
    fn the_parts_must_make_the_whole() {
        for pool in [256 * MIB, 4_096 * MIB, 1 << 40] {
            let shares = Shares::divided(pool);
            let (layers, burst) = (shares.layers_bytes.unwrap(), shares.burst_bytes.unwrap());
            let given = layers + shares.floors_bytes + burst;
            assert!(given < pool && pool - given >= pool / 16, "{pool}");
            assert!(layers + shares.instances_bytes().unwrap() < pool);
        }
    }

    #[test]
    fn a_lonely_writer_must_reach_its_max_and_a_greedy_one_must_stop_at_the_burst() {
        let left = |s: &Space| burst_left([*s].iter(), 1_000);
        let modest = space(300, 64, 400);
        assert_eq!(limit(&modest, left(&modest)), 400);
        let mut greedy = space(0, 64, 1 << 40);
        for _ in 0..100 {
            greedy.used = limit(&greedy, left(&greedy));
        }
        assert!((1_060..=1_064).contains(&greedy.used), "{}", greedy.used);
    }

    #[test]
    fn looking_at_none_must_mean_that_none_would_be_limited() {
        assert!(all_at_max(100, 50, 300));
        assert!(!all_at_max(101, 50, 300));
        assert!(!all_at_max(500, 50, 300));
    }

    proptest! {
        #[test]
        fn four_greedy_writers_must_not_take_what_is_under_others_floors(
            given in prop::collection::vec((0_u64..500, 0_u64..500), 1..12),
            writers in prop::collection::vec(0_usize..12, 4),
            rounds in 1_usize..30,
        ) {
            const BURST: u64 = 1_000;
            let mut spaces: Vec<_> = given.iter().map(|&(floor, more)| space(0, floor, floor + more)).collect();
            for _ in 0..rounds {
                let left = burst_left(spaces.iter(), BURST);
                let limits: Vec<_> = spaces.iter().map(|s| limit(s, left)).collect();
                for space in &spaces {
                    prop_assert!(limit(space, left) >= space.floor.max(space.used));
                }
                for &writer in &writers {
                    let writer = writer % spaces.len();
                    spaces[writer].used = limits[writer];
                }
                let above: u64 = spaces.iter().map(|s| s.used.saturating_sub(s.floor)).sum();
                prop_assert!(above <= BURST, "{above}");
            }
        }
    }
}

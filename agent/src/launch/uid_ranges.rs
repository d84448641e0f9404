//! Ranges of 65,536 user ids, each for one container at a time, handed out in turn, so that one that was just given back rests the
//! longest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_wire::id::InstanceId;

use crate::installation::{UIDS_PER_CONTAINER, UidBlock};

/// The pool.
#[derive(Debug)]
pub struct UidRanges {
    block: UidBlock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bases: BTreeMap<InstanceId, u32>,
    taken: BTreeSet<u32>,
    next: u32,
}

impl UidRanges {
    /// All ranges of the block but the last, which is the image unpacker's.
    pub fn new(block: UidBlock) -> Self {
        let block = UidBlock { ranges: block.ranges.saturating_sub(1), ..block };
        Self { block, state: Mutex::default() }
    }

    /// The first id of a container's range: the one it has, or the next free one. None if all are taken.
    pub fn take(&self, id: InstanceId) -> Option<u32> {
        let mut state = self.state();
        if let Some(base) = state.bases.get(&id) {
            return Some(*base);
        }
        for offset in 0..self.block.ranges {
            let number = (state.next + offset) % self.block.ranges;
            let base = self.block.base + number * UIDS_PER_CONTAINER;
            if state.taken.insert(base) {
                state.next = number + 1;
                state.bases.insert(id, base);
                return Some(base);
            }
        }
        None
    }

    /// Notes the range that an adopted container has.
    pub fn adopt(&self, id: InstanceId, base: u32) {
        let mut state = self.state();
        state.taken.insert(base);
        state.bases.insert(id, base);
    }

    /// Gives one container's range to another, which has none.
    pub fn hand_over(&self, from: InstanceId, to: InstanceId) {
        let mut state = self.state();
        if let Some(base) = state.bases.remove(&from) {
            state.bases.insert(to, base);
        }
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        (self.block.ranges as usize).saturating_sub(self.state().taken.len())
    }

    /// Gives a container's range back; idempotent.
    pub fn release(&self, id: InstanceId) {
        let mut state = self.state();
        if let Some(base) = state.bases.remove(&id) {
            state.taken.remove(&base);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(count: u32) -> UidRanges {
        UidRanges::new(UidBlock { base: 1 << 20, ranges: count + 1 })
    }

    fn id(number: u128) -> InstanceId {
        InstanceId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn two_containers_must_never_share_a_range() {
        let ranges = ranges(3);
        let bases: BTreeSet<u32> = (0..3).filter_map(|number| ranges.take(id(number))).collect();
        assert_eq!(bases.len(), 3);
        assert_eq!(ranges.take(id(3)), None);
    }

    #[test]
    fn a_range_given_back_must_rest_while_others_are_free() {
        let ranges = ranges(3);
        let first = ranges.take(id(0)).unwrap();
        ranges.release(id(0));
        ranges.release(id(0));
        assert_ne!(ranges.take(id(1)).unwrap(), first);
    }

    #[test]
    fn a_range_handed_over_must_stay_taken_under_the_new_name() {
        let ranges = ranges(2);
        let base = ranges.take(id(0)).unwrap();
        ranges.hand_over(id(0), id(1));
        ranges.release(id(0));
        assert_eq!((ranges.take(id(1)), ranges.free()), (Some(base), 1));
        assert_ne!(ranges.take(id(2)), Some(base));
    }

    #[test]
    fn an_adopted_range_must_not_be_handed_out() {
        let ranges = ranges(1);
        ranges.adopt(id(0), 1 << 20);
        assert_eq!(ranges.take(id(1)), None);
        assert_eq!(ranges.take(id(0)), Some(1 << 20));
        ranges.release(id(0));
        assert!(ranges.take(id(1)).is_some());
    }
}

//! Parts made ahead: how many there are, and when more are made. Each is used once. What they are is in `parts`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_wire::id::InstanceId;
use tokio::sync::{Notify, watch};

use super::Host;
use super::parts::PartsAhead;

/// What the reconciler starts at once. Each costs the kernel about 0.5 MiB as long as it waits; a storm that is larger makes its own.
pub const READY_MAX: usize = 8;

/// Making parts ahead waits so long for starts and removals that are under way, which need the launcher and the kernel's locks
/// themselves; then it goes on beside them, so that containers that start all the time are not without for good.
const GIVE_WAY_MAX: Duration = Duration::from_millis(100);

/// While more than half are there, more are made once nothing was started or removed for so long. On cgroup v1 the first process that is
/// written into a group waits for a grace period of the kernel, some 10 ms, with the lock held that every removal of a group needs; those
/// that follow at once do not.
const QUIET: Duration = Duration::from_millis(20);
const QUIET_MAX: Duration = Duration::from_secs(1);

/// Pause after a failure: the machine is out of something, and starts that need it now come first.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Parts made ahead, and how busy it is.
#[derive(Debug)]
pub struct Ready {
    parts: Mutex<VecDeque<PartsAhead>>,
    /// What was made ahead and could not be removed again: a parked process whose descriptor got lost ends a little later.
    left: Mutex<Vec<InstanceId>>,
    /// How many there are, for those who wait for them.
    count: watch::Sender<usize>,
    /// Told once: what there is on the machine has been taken over.
    begin: Notify,
    wanted: Notify,
    /// How many starts and removals are under way.
    busy: AtomicUsize,
    /// How many there ever were.
    begun: AtomicUsize,
    idle: Notify,
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            parts: Mutex::default(),
            left: Mutex::default(),
            count: watch::Sender::new(0),
            begin: Notify::new(),
            wanted: Notify::new(),
            busy: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }
}

/// A start or removal that is under way.
pub(super) struct Busy<'a>(&'a Ready);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_one();
        }
        self.0.want();
    }
}

impl Ready {
    /// The oldest, if there is one.
    pub(super) fn take(&self) -> Option<PartsAhead> {
        let mut parts = self.parts();
        let taken = parts.pop_front();
        self.count.send_replace(parts.len());
        taken
    }

    fn put(&self, made: PartsAhead) {
        let mut parts = self.parts();
        parts.push_back(made);
        self.count.send_replace(parts.len());
    }

    /// Remembers that the parts of this id are to be removed.
    pub(super) fn leave(&self, id: InstanceId) {
        self.left().push(id);
        self.want();
    }

    fn left(&self) -> MutexGuard<'_, Vec<InstanceId>> {
        // As for the parts.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that there may be too few, or something left.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// While this lives, making parts ahead gives way.
    pub(super) fn busy(&self) -> Busy<'_> {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self)
    }

    async fn give_way(&self) {
        let idle = async {
            while self.busy.load(Ordering::Acquire) > 0 {
                self.idle.notified().await;
            }
        };
        // Over time is as good: see GIVE_WAY_MAX.
        let _ = tokio::time::timeout(GIVE_WAY_MAX, idle).await;
    }

    /// Returns once it is quiet, or so few are left that it must not be waited for, or after [`QUIET_MAX`].
    async fn wait_for_quiet(&self, few: usize) {
        let quiet = async {
            while self.parts().len() > few {
                let begun = self.begun.load(Ordering::Acquire);
                self.give_way().await;
                tokio::time::sleep(QUIET).await;
                if begun == self.begun.load(Ordering::Acquire) && self.busy.load(Ordering::Acquire) == 0 {
                    return;
                }
            }
        };
        // Over time is as good: one start that takes long must not keep the others from what is made ahead.
        let _ = tokio::time::timeout(QUIET_MAX, quiet).await;
    }

    /// Waits until there are so many.
    pub async fn wait_for(&self, count: usize) {
        // The sender lives as long as self.
        let _ = self.count.subscribe().wait_for(|there| *there >= count).await;
    }

    fn parts(&self) -> MutexGuard<'_, VecDeque<PartsAhead>> {
        // Nothing in here can panic half-way.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// Lets [`Host::keep_ready`] begin. To be called once what there is on the machine has been taken over: what is made ahead would be
    /// taken for what a crash left, and removed under its owner.
    pub fn begin_making_ahead(&self) {
        self.ready.begin.notify_one();
    }

    /// Keeps so many parts ready, for ever; begins when told by [`Host::begin_making_ahead`]. What is there when it is dropped waits for
    /// [`Host::discard_ready`], or for the next agent.
    pub async fn keep_ready(self: Arc<Self>, count_max: usize) -> std::convert::Infallible {
        // Not by what is wanted: removing what a crash left says that more may be.
        self.ready.begin.notified().await;
        self.ready.want();
        loop {
            self.ready.wanted.notified().await;
            self.remove_left().await;
            self.ready.wait_for_quiet(count_max / 2).await;
            while self.ready.parts().len() < count_max && self.has_room_for(count_max) {
                self.ready.give_way().await;
                match self.make_ahead(InstanceId(uuid::Uuid::now_v7())).await {
                    Ok(made) => self.ready.put(made),
                    Err(_) => {
                        // What this left is tried again before more is made.
                        self.ready.want();
                        tokio::time::sleep(AFTER_FAILURE).await;
                        break;
                    }
                }
            }
        }
    }

    /// Once each; what is left again has said so by itself, and is tried after a pause.
    async fn remove_left(&self) {
        let left = std::mem::take(&mut *self.ready.left());
        for id in left {
            self.remove_made(id).await;
        }
        if !self.ready.left().is_empty() {
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    /// The last ranges and addresses of a host are for starts that need them now.
    fn has_room_for(&self, count: usize) -> bool {
        self.uids.free() > count && self.network.free() > count
    }

    /// Removes what was made ahead. Stop [`Host::keep_ready`] first.
    pub async fn discard_ready(&self) {
        while let Some(ahead) = self.ready.take() {
            self.discard(ahead).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn making_ahead_must_give_way_to_starts_and_removals_but_not_for_ever() {
        let ready = Ready::default();
        let starting = ready.busy();
        let mut waiting = Box::pin(ready.give_way());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        waiting.await;
        drop(starting);
        assert!(futures_util::poll!(Box::pin(ready.give_way())).is_ready());
    }
}

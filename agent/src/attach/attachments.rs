//! One-offs that somebody is to be attached to: the reconciler starts them when the spec says so, the session comes for their
//! streams when it comes, and neither waits for the other. A slot lasts until the instance is removed.
//!
//! ```text
//!   (either side first) ──> Waiting ──> Started ──> Ended
//!                              └──> Failed
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_wire::attach::AttachFailure;
use berth_wire::id::InstanceId;
use berth_wire::report::Exit;
use tokio::sync::watch;

use super::Streams;

/// How far a one-off is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It is being prepared, or its spec has not come yet.
    Waiting,
    /// Its command runs.
    Started,
    /// It could not be started.
    Failed(AttachFailure),
    /// It ended.
    Ended(Exit),
}

struct Slot {
    stage: watch::Sender<Stage>,
    streams: Option<Streams>,
}

/// All slots: as many as there are attached one-offs on this host, and sessions that wait for one.
#[derive(Clone, Default)]
pub struct Attachments(Arc<Mutex<BTreeMap<InstanceId, Slot>>>);

impl Attachments {
    /// How far an instance is, now and later.
    pub fn watch(&self, id: InstanceId) -> watch::Receiver<Stage> {
        slot(&mut self.lock(), id).stage.subscribe()
    }

    /// Its command runs, with these streams.
    pub fn started(&self, id: InstanceId, streams: Streams) {
        let mut slots = self.lock();
        let slot = slot(&mut slots, id);
        slot.streams = Some(streams);
        slot.stage.send_replace(Stage::Started);
    }

    /// It could not be started.
    pub fn failed(&self, id: InstanceId, failure: AttachFailure) {
        slot(&mut self.lock(), id).stage.send_replace(Stage::Failed(failure));
    }

    /// It ended; of others than attached ones nothing is kept.
    pub fn ended(&self, id: InstanceId, exit: Exit) {
        if let Some(slot) = self.lock().get(&id) {
            slot.stage.send_replace(Stage::Ended(exit));
        }
    }

    /// The streams, for the one who attaches first.
    pub fn take(&self, id: InstanceId) -> Option<Streams> {
        self.lock().get_mut(&id)?.streams.take()
    }

    /// Forgets an instance that is removed, or that nobody waits for any more.
    pub fn forget(&self, id: InstanceId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Slot>> {
        // Every change is one call: a panic elsewhere cannot leave it half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slot(slots: &mut BTreeMap<InstanceId, Slot>, id: InstanceId) -> &mut Slot {
    slots.entry(id).or_insert_with(|| Slot { stage: watch::Sender::new(Stage::Waiting), streams: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> InstanceId {
        InstanceId(uuid::Uuid::nil())
    }

    #[tokio::test]
    async fn a_session_that_comes_first_must_hear_of_the_start_and_the_end() {
        let attachments = Attachments::default();
        let mut stage = attachments.watch(id());
        let (outer, _inner) = crate::launch::pipes().unwrap();
        attachments.started(id(), Streams::of_pipes(outer).unwrap());
        assert_eq!(*stage.borrow_and_update(), Stage::Started);
        assert!(attachments.take(id()).is_some());
        assert!(attachments.take(id()).is_none(), "a second one must not get the same streams");
        attachments.ended(id(), Exit::Code(3));
        assert_eq!(*stage.borrow_and_update(), Stage::Ended(Exit::Code(3)));
    }

    #[test]
    fn nothing_must_be_kept_of_instances_that_nobody_is_attached_to() {
        let attachments = Attachments::default();
        attachments.ended(id(), Exit::Code(0));
        assert!(attachments.lock().is_empty());
        let stage = attachments.watch(id());
        attachments.forget(id());
        assert!(attachments.lock().is_empty());
        assert_eq!(*stage.borrow(), Stage::Waiting);
    }
}

//! Keeps the FIFOs of running containers open beside the launcher. What a container said last is in its FIFO and in no file yet, and one
//! that nobody holds loses what is in it: a container that ends while there is no launcher would not be heard. The next launcher finds it.
//!
//! Nothing is read here. As a reader it changes nothing for the container, which is its own reader, nor for the launcher, which sees the end
//! of the writers.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_wire::id::InstanceId;

/// Those that are held: one descriptor for each container whose output goes to a file.
#[derive(Debug)]
pub(super) struct Outputs {
    /// The launcher's directory of containers.
    instances: PathBuf,
    held: Mutex<HashMap<InstanceId, File>>,
}

impl Outputs {
    pub(super) fn new(launcher_dir: &Path) -> Self {
        Self { instances: launcher_dir.join("instances"), held: Mutex::default() }
    }

    /// Holds the FIFO of a container, if it has one.
    pub(super) fn hold(&self, id: InstanceId) {
        let mut held = self.held();
        if held.contains_key(&id) {
            return;
        }
        // Without waiting for a writer. Not there: its output goes elsewhere.
        let path = self.instances.join(id.to_string()).join("output");
        if let Ok(fifo) = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
            held.insert(id, fifo);
        }
    }

    /// Lets it go.
    pub(super) fn release(&self, id: InstanceId) {
        self.held().remove(&id);
    }

    /// Which containers' are held.
    pub(super) fn ids(&self) -> BTreeSet<InstanceId> {
        self.held().keys().copied().collect()
    }

    /// Holds those of the containers that run; of those that were held `before` that was asked, no others.
    pub(super) fn hold_running(&self, running: &BTreeSet<InstanceId>, before: &BTreeSet<InstanceId>) {
        self.held().retain(|id, _| running.contains(id) || !before.contains(id));
        running.iter().for_each(|id| self.hold(*id));
    }

    fn held(&self) -> MutexGuard<'_, HashMap<InstanceId, File>> {
        // Every change is one call: a panic elsewhere cannot leave it half-changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn what_was_said_last_must_outlive_the_last_writer() {
        let dir = tempfile::tempdir().unwrap();
        let (outputs, id) = (Outputs::new(dir.path()), InstanceId(uuid::Uuid::now_v7()));
        let place = dir.path().join("instances").join(id.to_string());
        std::fs::create_dir_all(&place).unwrap();
        let fifo = place.join("output");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let both =
            || OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
        let said = |outputs: &Outputs, held: bool| {
            let mut container = both();
            if held {
                outputs.hold_running(&BTreeSet::from([id]), &outputs.ids());
            }
            container.write_all(b"last words\n").unwrap();
            drop(container);
            let mut found = [0; 32];
            both().read(&mut found).unwrap_or_default()
        };
        assert_eq!(said(&outputs, true), 11);
        // Launched since: an older list does not know it.
        outputs.hold_running(&BTreeSet::new(), &BTreeSet::new());
        assert_eq!(outputs.ids(), BTreeSet::from([id]));
        outputs.hold_running(&BTreeSet::new(), &outputs.ids());
        assert_eq!(said(&outputs, false), 0);
    }
}

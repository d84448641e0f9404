//! Removing a container: idempotent, tries every part, forgets last, so that whatever could not be removed is found again.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_wire::id::InstanceId;
use berth_wire::launch::{Child, ChildState};

use super::{ContainerError, Host, unless_gone};
use crate::launch::LaunchError;

/// How long the kernel may take to end killed processes: one in uninterruptible I/O takes as long as the disk does.
const KILL_WAIT_MAX: Duration = Duration::from_secs(20);
/// How long a killed cgroup may take to get empty, in milliseconds.
const EMPTY_WAIT_MS_MAX: u32 = 5_000;

impl Host {
    /// Kills and removes every part; idempotent. Tries everything, forgets last; with `release_address`, its address may be
    /// given to another container at once.
    ///
    /// # Errors
    /// The parts that could not be removed.
    pub async fn destroy(&self, id: InstanceId, release_address: bool) -> Result<(), ContainerError> {
        let mut failed = Vec::new();
        let _busy = self.ready.busy();
        if self.has_ended(id) {
            // Side by side: nothing runs any more that could need its ids if this agent ended in between.
            let forgotten = self.forget_ended(id);
            let (forgotten, ()) =
                tokio::join!(forgotten, self.remove_parts(id, release_address, &mut failed));
            note(&mut failed, "launcher", forgotten);
        } else {
            note(&mut failed, "process", self.end(id).await);
            self.remove_parts(id, release_address, &mut failed).await;
            if failed.is_empty() {
                note(&mut failed, "launcher", self.launcher.forget(id).await);
            }
        }
        if failed.is_empty() {
            // Last: as long as anything of it is left, nobody else gets its ids.
            self.uids.release(id);
            return Ok(());
        }
        Err(ContainerError::new(id, "remove", failed.join("; ")))
    }

    /// Whether no process of it is left, as its cgroup says.
    fn has_ended(&self, id: InstanceId) -> bool {
        match self.cgroups.get(id) {
            Ok(Some(group)) => group.populated().is_ok_and(|populated| !populated),
            found => found.is_ok(),
        }
    }

    /// The launcher may hear of the end a little later than the cgroup.
    async fn forget_ended(&self, id: InstanceId) -> Result<(), String> {
        let forgotten = self.launcher.forget(id).await;
        match forgotten {
            Err(LaunchError::Refused(failure)) if failure.errno == libc::EBUSY => {}
            other => return other.map_err(|error| error.to_string()),
        }
        let ended = tokio::time::timeout(KILL_WAIT_MAX, self.wait(id)).await;
        ended.map_err(|_| "does not notice its end".to_owned())?;
        self.launcher.forget(id).await.map_err(|error| error.to_string())
    }

    async fn end(&self, id: InstanceId) -> Result<(), String> {
        let running = |child: &Child| !matches!(child.state, ChildState::Exited(_));
        let known = self.launcher.status(id).await.map_err(|error| error.to_string())?;
        if !known.as_ref().is_some_and(running) {
            return Ok(());
        }
        unless_gone(self.launcher.kill(id).await).map_err(|error| error.to_string())?;
        let ended = tokio::time::timeout(KILL_WAIT_MAX, self.wait(id)).await;
        ended.map(drop).map_err(|_| format!("still there {} s after SIGKILL", KILL_WAIT_MAX.as_secs()))
    }

    async fn remove_parts(&self, id: InstanceId, release_address: bool, failed: &mut Vec<String>) {
        // The processes are gone once the cgroup is: an interface that is still used must not go unnoticed.
        let (group, disk) = tokio::join!(self.remove_cgroup(id), self.disk.remove(id));
        let gone = group.is_ok();
        note(failed, "cgroup", group);
        note(failed, "disk", disk);
        let network = match (gone, release_address) {
            (true, release_address) => self.network.leave(id, release_address).await,
            (false, _) => self.network.detach(id).await,
        };
        note(failed, "network", network);
    }

    async fn remove_cgroup(&self, id: InstanceId) -> Result<(), String> {
        let Some(group) = self.cgroups.get(id).map_err(|error| error.to_string())? else { return Ok(()) };
        let removed = tokio::task::spawn_blocking(move || {
            if group.populated()? {
                group.kill()?;
                group.wait_empty(EMPTY_WAIT_MS_MAX)?;
            }
            group.remove()
        });
        match removed.await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("interrupted".to_owned()),
        }
    }

    /// Removes parts of containers that the launcher does not know.
    pub(super) async fn remove_strays(&self, known: &[Child]) {
        let known: BTreeSet<InstanceId> = known.iter().map(|child| child.id).collect();
        let mut found: BTreeSet<InstanceId> = BTreeSet::new();
        found.extend(self.cgroups.list().unwrap_or_default());
        found.extend(self.disk.list().unwrap_or_default());
        for id in found.difference(&known) {
            if let Err(error) = self.destroy(*id, false).await {
                tracing::warn!(instance = %id, %error, "stray container not removed");
            }
        }
    }
}

fn note<E: std::fmt::Display>(failed: &mut Vec<String>, part: &str, done: Result<(), E>) {
    if let Err(error) = done {
        failed.push(format!("{part}: {error}"));
    }
}

//! Another quota for a container that runs. What can refuse comes first, so that a refusal changes nothing; each part may
//! be repeated. Which quota it should be is decided by the callers.

use std::os::fd::AsFd as _;

use berth_wire::id::InstanceId;
use berth_wire::launch::ChildState;
use berth_wire::quota::{MIB, Quota};

use super::{Host, unless_gone};
use crate::cgroup::CgroupError;

/// Why a running container was not given a quota.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// It cannot have it while it runs; the quota before is in force.
    #[error("{0}")]
    Never(String),
    /// Something of the machine is in the way; part of it may be in force.
    #[error("{0}")]
    Failed(String),
}

impl Host {
    /// Gives a running container another quota. A max below what is in use is refused where the kernel would end or block the
    /// container for it: memory that cannot be reclaimed, disk that is written to. Processes above a new max live on.
    ///
    /// # Errors
    /// [`QuotaError::Never`] if only a new container can have it.
    pub async fn set_quota(&self, id: InstanceId, quota: Quota) -> Result<(), QuotaError> {
        // A space that has no counter has no content either.
        let (written, _) = self.disk.usage(id).unwrap_or_default();
        if written > quota.disk_bytes.max {
            let (has, max) = (written / MIB, quota.disk_bytes.max / MIB);
            let message =
                format!("it has written {has} MiB to its own root, more than the {max} MiB it may have");
            return Err(QuotaError::Never(message));
        }
        self.set_group_quota(id, quota).await?;
        self.disk.set_quota(id, quota.disk_bytes).await.map_err(QuotaError::failed)?;
        self.set_egress(id, quota.egress_bytes_per_second).await?;
        let lines_per_second = u32::try_from(quota.log_lines_per_second.max).unwrap_or(u32::MAX);
        unless_gone(self.launcher.set_log_rate(id, lines_per_second).await).map_err(QuotaError::failed)
    }

    /// In the network namespace of its init.
    async fn set_egress(&self, id: InstanceId, bytes_per_second: u64) -> Result<(), QuotaError> {
        if self.network.get(id).is_none() {
            return Ok(());
        }
        let Some(child) = self.launcher.status(id).await.map_err(QuotaError::failed)? else { return Ok(()) };
        if matches!(child.state, ChildState::Exited(_)) {
            return Ok(());
        }
        let path = format!("/proc/{}/ns/net", child.pid);
        let netns = std::fs::File::open(&path)
            .map_err(|error| QuotaError::failed(format!("open {path}: {error}")))?;
        self.network.limit_egress(netns.as_fd(), bytes_per_second).await.map_err(QuotaError::failed)
    }

    async fn set_group_quota(&self, id: InstanceId, quota: Quota) -> Result<(), QuotaError> {
        let Some(group) = self.cgroups.get(id).map_err(QuotaError::failed)? else {
            return Err(QuotaError::Failed(format!("container {id} has no control group")));
        };
        // Reclaiming memory takes as long as the disk does.
        let set = tokio::task::spawn_blocking(move || {
            group.set_quota(&quota)?;
            group.set_process_limits(&quota)
        })
        .await;
        match set.map_err(|_| QuotaError::Failed("interrupted".to_owned()))? {
            Err(error @ CgroupError::MemoryInUse { .. }) => Err(QuotaError::Never(error.to_string())),
            Err(CgroupError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                let message = "the agent may not change the open files of processes that run (it lacks CAP_SYS_RESOURCE)";
                Err(QuotaError::Never(message.to_owned()))
            }
            done => done.map_err(QuotaError::failed),
        }
    }
}

impl QuotaError {
    fn failed(reason: impl std::fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }
}

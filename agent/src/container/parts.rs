//! The parts of a container before its process: made when they are needed, or made ahead and handed over to it. What is made ahead,
//! and how many, is `ready`'s business.
//!
//! Parts made ahead are those of a container like any other, under an id of their own: what a crash leaves of them is found and removed
//! like what it leaves of a container. Handing over renames them; only the unified cgroup, which the kernel cannot rename, is made then.

use std::os::fd::AsFd;

use berth_wire::id::InstanceId;
use berth_wire::launch::Namespaces;
use berth_wire::quota::{Bounds, Quota};

use super::steps::Steps;
use super::{ContainerSpec, Host, StartError, start};
use crate::cgroup::Cgroup;
use crate::disk::Scratch;
use crate::installation::UIDS_PER_CONTAINER;
use crate::launch::{NamespacePair, Parked};
use crate::network::Endpoint;

/// The parts of a container, before its process.
#[derive(Debug)]
pub(super) struct Parts {
    pub uid_base: u32,
    pub cgroup: Cgroup,
    pub scratch: Scratch,
    pub namespaces: NamespacePair,
    pub endpoint: Option<Endpoint>,
    /// A process in its v1 cgroups, if one is there already.
    pub parked: Option<Parked>,
}

/// Parts made ahead.
#[derive(Debug)]
pub(super) struct PartsAhead {
    /// What they are called until they are handed over.
    pub id: InstanceId,
    /// The quota that is set already.
    quota: Quota,
    uid_base: u32,
    namespaces: NamespacePair,
    parked: Option<Parked>,
}

impl Host {
    /// Parts made ahead if there are any, else made now.
    pub(super) async fn parts_for(
        &self,
        spec: &ContainerSpec,
        steps: &mut Steps,
    ) -> Result<Parts, StartError> {
        let id = spec.id;
        // A space that an earlier run of the same instance left is no longer mountable (`volatile`), and its content is not wanted.
        if self.disk.get(id).is_some() {
            self.disk.remove(id).await.map_err(start::disk)?;
        }
        // Without a network there is to be no veth at all: such parts are not made ahead.
        if spec.network
            && self.network.get(id).is_none()
            && let Some(ahead) = self.ready.take()
        {
            let handed_over = self.hand_over(&ahead, id, &spec.quota).await;
            steps.done("take parts made ahead");
            match handed_over {
                Ok((cgroup, scratch, endpoint)) => {
                    let PartsAhead { uid_base, namespaces, parked, .. } = ahead;
                    let endpoint = Some(endpoint);
                    return Ok(Parts { uid_base, cgroup, scratch, namespaces, endpoint, parked });
                }
                Err(error) => {
                    tracing::warn!(parts = %ahead.id, %error, "parts made ahead could not be used");
                    self.discard(ahead).await;
                }
            }
        }
        self.make_parts(spec, steps).await
    }

    async fn make_parts(&self, spec: &ContainerSpec, steps: &mut Steps) -> Result<Parts, StartError> {
        let id = spec.id;
        let uid_base = self.uid_base(id)?;
        let cgroup = self.cgroups.create(id, &spec.quota).map_err(StartError::failed)?;
        steps.done("make cgroups");
        let (namespaces, scratch) = tokio::join!(
            self.launcher.namespaces(namespaces(uid_base)),
            self.disk.create(id, spec.quota.disk_bytes)
        );
        let (namespaces, scratch) = (
            namespaces.map_err(start::launch_error(spec.id, &spec.argv, &spec.cwd))?,
            scratch.map_err(start::disk)?,
        );
        steps.done("make namespaces and disk");
        let endpoint = if spec.network {
            let (netns, rate) = (namespaces.network.as_fd(), spec.quota.egress_bytes_per_second);
            let attached = self.network.attach(id, netns, rate).await;
            Some(attached.map_err(StartError::failed)?)
        } else {
            None
        };
        steps.done("make the network");
        Ok(Parts { uid_base, cgroup, scratch, namespaces, endpoint, parked: None })
    }

    fn uid_base(&self, id: InstanceId) -> Result<u32, StartError> {
        self.uids.take(id).ok_or_else(|| {
            StartError::failed("every user id range of this host is taken; remove instances or add a host")
        })
    }

    /// Makes parts that no container has asked for yet. What a failure leaves is removed.
    pub(super) async fn make_ahead(&self, id: InstanceId) -> Result<PartsAhead, StartError> {
        let mut parked = None;
        match self.make_most(id, &mut parked).await {
            Ok((quota, uid_base, namespaces)) => Ok(PartsAhead { id, quota, uid_base, namespaces, parked }),
            Err(error) => {
                tracing::warn!(%error, "parts could not be made ahead");
                self.discard_made(id, parked).await;
                Err(error)
            }
        }
    }

    async fn make_most(
        &self,
        id: InstanceId,
        parked: &mut Option<Parked>,
    ) -> Result<(Quota, u32, NamespacePair), StartError> {
        // Most apps state no quota. For the others it is written when the parts are handed over.
        let quota = Quota::default();
        let uid_base = self.uid_base(id)?;
        let groups = self.cgroups.make_ahead(id, &quota).map_err(StartError::failed)?;
        if !groups.is_empty() {
            *parked = Some(self.launcher.park(&groups).await.map_err(StartError::failed)?);
        }
        // No floor yet: what nobody has asked for reserves nothing.
        self.disk.create(id, Bounds::new(0, quota.disk_bytes.max)).await.map_err(start::disk)?;
        let namespaces = self.launcher.namespaces(namespaces(uid_base)).await.map_err(StartError::failed)?;
        let (netns, rate) = (namespaces.network.as_fd(), quota.egress_bytes_per_second);
        self.network.attach(id, netns, rate).await.map_err(StartError::failed)?;
        if let Some(parked) = parked {
            parked.joined().await.map_err(StartError::failed)?;
        }
        Ok((quota, uid_base, namespaces))
    }

    /// Gives the parts the container's name and quota. After a failure some have one name, some the other.
    async fn hand_over(
        &self,
        ahead: &PartsAhead,
        to: InstanceId,
        quota: &Quota,
    ) -> Result<(Cgroup, Scratch, Endpoint), StartError> {
        let (from, set) = (ahead.id, &ahead.quota);
        self.uids.hand_over(from, to);
        let cgroup = self.cgroups.hand_over((from, set), (to, quota)).map_err(StartError::failed)?;
        let scratch = self.disk.hand_over(from, to, quota.disk_bytes).map_err(start::disk)?;
        let endpoint = self.network.hand_over(from, to).map_err(StartError::failed)?;
        let rate = quota.egress_bytes_per_second;
        if rate != set.egress_bytes_per_second {
            let limited = self.network.limit_egress(ahead.namespaces.network.as_fd(), rate).await;
            limited.map_err(StartError::failed)?;
        }
        Ok((cgroup, scratch, endpoint))
    }

    /// Removes parts made ahead.
    pub(super) async fn discard(&self, ahead: PartsAhead) {
        let PartsAhead { id, namespaces, parked, .. } = ahead;
        drop(namespaces);
        self.discard_made(id, parked).await;
    }

    async fn discard_made(&self, id: InstanceId, parked: Option<Parked>) {
        if let Some(parked) = parked {
            parked.end().await;
        }
        self.remove_made(id).await;
    }

    /// Removes what was made ahead under this id; what is left for now is tried again, at the latest by the next agent.
    pub(super) async fn remove_made(&self, id: InstanceId) {
        if let Err(error) = self.destroy(id, true).await {
            tracing::warn!(parts = %id, %error, "parts made ahead are left; it will be tried again");
            self.ready.leave(id);
        }
    }
}

fn namespaces(uid_base: u32) -> Namespaces {
    Namespaces { uid_base, uid_count: UIDS_PER_CONTAINER, nested_max: 0 }
}

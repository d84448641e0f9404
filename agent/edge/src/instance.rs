//! One instance as the edge sees it: its address, what is in flight to it, its idle connections, its counters. The
//! same object lives through all tables that have the instance, and after them until nothing is in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use berth_wire::edge::Upstream;
use berth_wire::id::InstanceId;
use tokio::sync::watch;

use crate::idle::{IdleBudget, IdlePool};
use crate::stats::InstanceCounters;

/// An instance.
pub struct Instance {
    /// Which.
    pub id: InstanceId,
    /// `web.1`.
    pub process: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections that wait for a request.
    pub idle: IdlePool,
    /// Its requests.
    pub counters: InstanceCounters,
    in_flight: AtomicU32,
    retired: AtomicBool,
    /// Bumped when a retired instance's last request ends.
    drained: watch::Sender<u64>,
}

impl Instance {
    /// One that nothing was sent to yet. `drained` is bumped when, retired, its last request ends.
    pub fn new(upstream: &Upstream, budget: IdleBudget, drained: watch::Sender<u64>) -> Self {
        Self {
            id: upstream.instance,
            process: upstream.process.clone(),
            address: upstream.address,
            idle: IdlePool::new(budget),
            counters: InstanceCounters::default(),
            in_flight: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            drained,
        }
    }

    /// Whether it is this instance at this address.
    pub fn is(&self, upstream: &Upstream) -> bool {
        self.id == upstream.instance && self.address == upstream.address
    }

    /// Requests and upgraded connections now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// It left the table: its idle connections are closed, and none becomes idle any more.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.idle.close();
    }

    /// It is in the table again.
    pub fn revive(&self) {
        self.idle.open();
        self.retired.store(false, Ordering::SeqCst);
    }
}

/// One request (or upgraded connection) to an instance, counted while this exists.
pub struct InFlight(Arc<Instance>);

impl InFlight {
    /// Counts one more.
    pub fn begin(instance: &Arc<Instance>) -> Self {
        instance.in_flight.fetch_add(1, Ordering::SeqCst);
        Self(instance.clone())
    }

    /// To whom.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Retiring sets the flag and then reads the count; this lowers the count and then reads the flag: in every order
        // one of the two sees the other (both are sequentially consistent).
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.retired.load(Ordering::SeqCst) {
            self.0.drained.send_modify(|count| *count += 1);
        }
    }
}

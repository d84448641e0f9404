//! The table in force: looked up by every request, swapped whole. What the agent relies on:
//!
//! - A request chooses its instance and is counted in flight under the read lock; a swap takes the write lock. So when
//!   [`Routes::swap`] returns, every request that used an older table is counted, and no later one can use it.
//! - An instance that left the table keeps its count until its last request ends, and gets no idle connection back.
//!
//! The table's file is in [`crate::table_file`].

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use berth_wire::code::Code;
use berth_wire::edge::{RequestStats, Table, Upstream};
use berth_wire::id::{AppId, InstanceId};
use berth_wire::name::AppName;
use tokio::sync::watch;

use crate::idle::IdleBudget;
use crate::instance::{InFlight, Instance};

/// How long the counters of an instance are kept after it left the table.
const COUNTERS_KEPT: Duration = Duration::from_secs(3_600);

/// Most instances kept for their counters alone: an hour of one new instance every 0.9 s.
const COUNTERS_KEPT_MAX: usize = 4_096;

/// Who answers for a domain.
pub struct Entry {
    /// The app.
    pub app: AppId,
    /// Its name.
    pub app_name: AppName,
    /// Why there is no instance, if there is none.
    pub absent: Code,
    instances: Vec<Arc<Instance>>,
    /// Where the search for the least busy one starts, so that equals take turns.
    turn: AtomicUsize,
}

impl Entry {
    /// The one with the least in flight, other than `except`.
    fn least_busy(&self, except: Option<InstanceId>) -> Option<&Arc<Instance>> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.instances.len();
        (0..count)
            .map(|at| &self.instances[(start.wrapping_add(at)) % count])
            .filter(|instance| Some(instance.id) != except)
            .min_by_key(|instance| instance.in_flight())
    }
}

/// Where a request goes.
pub enum Choice {
    /// To this instance of this app; already counted.
    Instance(Arc<Entry>, InFlight),
    /// The app has no (other) instance.
    Absent(Arc<Entry>),
    /// No app has this domain.
    UnknownDomain,
    /// There was never a table.
    NoTable,
}

#[derive(Default)]
struct InForce {
    number: u64,
    domains: HashMap<String, Arc<Entry>>,
}

/// The instances of the table in force.
type Live = HashMap<(InstanceId, SocketAddr), Arc<Instance>>;

/// What only swaps and reports touch.
#[derive(Default)]
struct Ledger {
    table: Table,
    live: Live,
    retired: Vec<(Arc<Instance>, Instant)>,
}

/// The table in force and the instances that left it.
pub struct Routes {
    in_force: RwLock<InForce>,
    ledger: Mutex<Ledger>,
    drained: watch::Sender<u64>,
    idle: IdleBudget,
}

/// A table was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is older than the one in force.
    #[error("route table {given} is older than {current}, which is in force; ignored")]
    Older {
        /// Its number.
        given: u64,
        /// The number in force.
        current: u64,
    },
    /// It has the number of the one in force and other content.
    #[error(
        "route table {number} differs from the one with the same number that is in force; ignored, send it with a higher number"
    )]
    Differs {
        /// The number.
        number: u64,
    },
}

impl Routes {
    /// No table yet. At most so many idle connections to all instances together.
    pub fn new(idle_connections_max: usize) -> Self {
        Self {
            in_force: RwLock::default(),
            ledger: Mutex::default(),
            drained: watch::Sender::new(0),
            idle: IdleBudget::new(idle_connections_max),
        }
    }

    /// Where a request for this host (a key of [`crate::host`]) goes now.
    pub fn choose(&self, host: &str, except: Option<InstanceId>) -> Choice {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = in_force.domains.get(host) else {
            return if in_force.number == 0 { Choice::NoTable } else { Choice::UnknownDomain };
        };
        match entry.least_busy(except) {
            Some(instance) => Choice::Instance(entry.clone(), InFlight::begin(instance)),
            None => Choice::Absent(entry.clone()),
        }
    }

    /// Puts a table in force. `Ok(false)`: it is already. When this returns, no new request uses an older one.
    ///
    /// # Errors
    /// When it is older than the one in force, or another with the same number.
    pub fn swap(&self, table: Table, now: Instant) -> Result<bool, Refused> {
        let mut ledger = self.ledger();
        let current = ledger.table.number;
        if table.number < current {
            return Err(Refused::Older { given: table.number, current });
        }
        if table.number == current {
            return if table == ledger.table { Ok(false) } else { Err(Refused::Differs { number: current }) };
        }
        let mut live = Live::new();
        let domains = self.entries(&table, &mut ledger, &mut live);
        let next = InForce { number: table.number, domains };
        let old =
            std::mem::replace(&mut *self.in_force.write().unwrap_or_else(PoisonError::into_inner), next);
        for (key, instance) in std::mem::replace(&mut ledger.live, live) {
            if !ledger.live.contains_key(&key) {
                instance.retire();
                ledger.retired.push((instance, now));
            }
        }
        ledger.table = table;
        forget(&mut ledger.retired, now);
        drop(ledger);
        drop(old);
        Ok(true)
    }

    /// The table as looked up, with the instances that are known already; fills `live`.
    fn entries(&self, table: &Table, ledger: &mut Ledger, live: &mut Live) -> HashMap<String, Arc<Entry>> {
        let mut domains = HashMap::with_capacity(table.domains.len());
        for (domain, backend) in &table.domains {
            let instances =
                backend.upstreams.iter().map(|upstream| self.instance(upstream, ledger, live)).collect();
            let entry = Entry {
                app: backend.app,
                app_name: backend.app_name.clone(),
                absent: backend.absent.unwrap_or(Code::H14),
                instances,
                turn: AtomicUsize::new(0),
            };
            domains.insert(domain.as_str().to_owned(), Arc::new(entry));
        }
        domains
    }

    fn instance(&self, upstream: &Upstream, ledger: &mut Ledger, live: &mut Live) -> Arc<Instance> {
        let key = (upstream.instance, upstream.address);
        if let Some(instance) = live.get(&key) {
            return instance.clone();
        }
        let known = ledger.live.get(&key).cloned();
        let instance = known.unwrap_or_else(|| {
            match ledger.retired.iter().position(|(instance, _)| instance.is(upstream)) {
                Some(at) => {
                    let (instance, _) = ledger.retired.remove(at);
                    instance.revive();
                    instance
                }
                None => Arc::new(Instance::new(upstream, self.idle.clone(), self.drained.clone())),
            }
        });
        live.insert(key, instance.clone());
        instance
    }

    /// The number in force; 0 before the first table.
    pub fn number(&self) -> u64 {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).number
    }

    /// The table in force as it was given.
    pub fn table(&self) -> Table {
        self.ledger().table.clone()
    }

    /// What is in flight to instances that are not in the table in force, and that table's number.
    pub fn retired(&self) -> (u64, BTreeMap<InstanceId, u32>) {
        let ledger = self.ledger();
        let mut in_flight = BTreeMap::new();
        for (instance, _) in &ledger.retired {
            let count = instance.in_flight();
            if count > 0 {
                *in_flight.entry(instance.id).or_insert(0) += count;
            }
        }
        (ledger.table.number, in_flight)
    }

    /// Changes whenever the last request to a retired instance ends.
    pub fn drained(&self) -> watch::Receiver<u64> {
        self.drained.subscribe()
    }

    /// The counters of every instance, those that left within the hour included.
    pub fn stats(&self) -> BTreeMap<InstanceId, RequestStats> {
        let ledger = self.ledger();
        let retired = ledger.retired.iter().map(|(instance, _)| instance);
        let all = retired.chain(ledger.live.values());
        all.map(|instance| (instance.id, instance.counters.snapshot(instance.in_flight()))).collect()
    }

    /// Closes connections that have been idle too long and forgets counters that are old.
    pub fn tidy(&self, now: Instant) {
        let mut ledger = self.ledger();
        for instance in ledger.live.values() {
            instance.idle.expire(now);
        }
        forget(&mut ledger.retired, now);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets retired instances whose hour is over, and the oldest when there are too many; never one with requests in flight.
fn forget(retired: &mut Vec<(Arc<Instance>, Instant)>, now: Instant) {
    let excess = retired.len().saturating_sub(COUNTERS_KEPT_MAX);
    let mut at = 0;
    retired.retain(|(instance, since)| {
        at += 1;
        let kept = at > excess && now.duration_since(*since) < COUNTERS_KEPT;
        kept || instance.in_flight() > 0
    });
}

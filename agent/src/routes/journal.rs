//! Which table had which instance, and what the edge said about it: pure bookkeeping, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use berth_wire::edge::Table;
use berth_wire::id::InstanceId;

use super::RoutesStatus;

/// Tables handed out and not yet acknowledged whose instances are remembered. The edge acknowledges every table it is sent and is sent
/// only the newest, so more than a few wait only while it is gone.
const UNACKED_MAX: usize = 1_024;

/// The bookkeeping.
#[derive(Debug, Default)]
pub(super) struct Journal {
    connected: bool,
    published: u64,
    /// Highest number of a table that had the instance, by instance. Forgotten once quiet and acknowledged.
    last_in: BTreeMap<InstanceId, u64>,
    /// Instances of the tables from the acknowledged one to the newest.
    tables: BTreeMap<u64, BTreeSet<InstanceId>>,
    /// The newest acknowledged table of this process, on whatever connection.
    acked: u64,
    /// The same on the connection open now; 0 without one.
    acked_now: u64,
    /// The newest table for which the edge said, on this connection, what is in flight.
    counted_now: u64,
    retired: BTreeMap<InstanceId, u32>,
}

impl Journal {
    /// A table was handed out.
    pub(super) fn published(&mut self, table: &Table) {
        let instances: BTreeSet<InstanceId> =
            table.domains.values().flat_map(|backend| &backend.upstreams).map(|u| u.instance).collect();
        for instance in &instances {
            self.last_in.insert(*instance, table.number);
        }
        self.tables.insert(table.number, instances);
        self.published = table.number;
        while self.tables.len() > UNACKED_MAX {
            // Not the first: it is what the edge serves.
            let second = self.tables.keys().nth(1).copied();
            second.and_then(|number| self.tables.remove(&number));
        }
    }

    /// A connection to the edge was made (`true`) or lost.
    pub(super) fn connection(&mut self, connected: bool) {
        self.connected = connected;
        self.acked_now = 0;
        self.counted_now = 0;
        self.retired.clear();
    }

    /// The edge acknowledged a table. Numbers that this process did not hand out are an earlier agent's.
    pub(super) fn acked(&mut self, number: u64) {
        if !self.tables.contains_key(&number) || number < self.acked {
            return;
        }
        self.acked = number;
        self.acked_now = number;
        self.tables.retain(|have, _| *have >= number);
    }

    /// The edge said what is in flight to instances that left the table.
    pub(super) fn retired(&mut self, number: u64, in_flight: BTreeMap<InstanceId, u32>) {
        if number < self.counted_now {
            return;
        }
        self.counted_now = number;
        self.retired = in_flight;
        let (acked, retired) = (self.acked_now.min(number), &self.retired);
        self.last_in.retain(|instance, last| *last >= acked || retired.contains_key(instance));
    }

    /// Whether the newest table has it.
    pub(super) fn is_published(&self, instance: InstanceId) -> bool {
        self.published > 0 && self.last_in.get(&instance) == Some(&self.published)
    }

    /// See [`super::Routes::is_quiet`]. An instance that this process never published may be in an earlier agent's table,
    /// which any acknowledged one of this process has replaced.
    pub(super) fn is_quiet(&self, instance: InstanceId) -> bool {
        let settled = self.acked_now.min(self.counted_now);
        let last_in = self.last_in.get(&instance).copied().unwrap_or(0);
        settled > last_in && !self.retired.contains_key(&instance)
    }

    /// The newest number handed out.
    pub(super) fn newest(&self) -> u64 {
        self.published
    }

    /// For everybody else.
    pub(super) fn status(&self) -> RoutesStatus {
        RoutesStatus {
            connected: self.connected,
            published: self.published,
            acked: self.acked,
            serving: self.tables.get(&self.acked).cloned().unwrap_or_default(),
            retired: self.retired.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use berth_wire::edge::{Backend, Upstream};
    use uuid::Uuid;

    use super::*;

    fn instance(n: u128) -> InstanceId {
        InstanceId(Uuid::from_u128(n))
    }

    fn table(number: u64, instances: &[u128]) -> Table {
        let upstreams = instances
            .iter()
            .map(|n| Upstream {
                instance: instance(*n),
                process: "web.1".to_owned(),
                address: "127.0.0.1:1".parse().unwrap(),
            })
            .collect();
        let backend = Backend {
            app: berth_wire::id::AppId(Uuid::from_u128(9)),
            app_name: "shop".parse().unwrap(),
            upstreams,
            absent: None,
        };
        Table { number, domains: BTreeMap::from([("shop.localhost".parse().unwrap(), backend)]) }
    }

    fn connected() -> Journal {
        let mut journal = Journal::default();
        journal.connection(true);
        journal
    }

    #[test]
    fn an_instance_must_be_quiet_only_after_ack_and_count() {
        let mut journal = connected();
        journal.published(&table(1, &[1, 2]));
        journal.acked(1);
        journal.retired(1, BTreeMap::new());
        journal.published(&table(2, &[2]));
        assert!(!journal.is_quiet(instance(1)), "not acknowledged");
        journal.acked(2);
        assert!(!journal.is_quiet(instance(1)), "not counted");
        journal.retired(2, BTreeMap::from([(instance(1), 3)]));
        assert!(!journal.is_quiet(instance(1)), "three in flight");
        journal.retired(2, BTreeMap::new());
        assert!(journal.is_quiet(instance(1)));
        assert!(!journal.is_quiet(instance(2)), "still routed");
        assert_eq!(journal.status().serving, BTreeSet::from([instance(2)]));
    }

    #[test]
    fn an_unknown_instance_must_wait_for_a_table_of_this_process() {
        let mut journal = connected();
        journal.acked(700);
        journal.retired(700, BTreeMap::new());
        assert!(!journal.is_quiet(instance(1)), "the earlier agent's table may have it");
        journal.published(&table(701, &[]));
        journal.acked(701);
        journal.retired(701, BTreeMap::new());
        assert!(journal.is_quiet(instance(1)));
    }

    #[test]
    fn a_lost_connection_must_make_nothing_quiet() {
        let mut journal = connected();
        journal.published(&table(1, &[]));
        journal.acked(1);
        journal.retired(1, BTreeMap::new());
        assert!(journal.is_quiet(instance(1)));
        journal.connection(false);
        assert!(!journal.is_quiet(instance(1)));
        journal.connection(true);
        journal.acked(1);
        journal.retired(1, BTreeMap::new());
        assert!(journal.is_quiet(instance(1)));
    }

    #[test]
    fn an_instance_that_comes_back_must_not_be_quiet() {
        let mut journal = connected();
        for (number, instances) in [(1, &[1][..]), (2, &[]), (3, &[1])] {
            journal.published(&table(number, instances));
        }
        journal.acked(2);
        journal.retired(2, BTreeMap::new());
        assert!(!journal.is_quiet(instance(1)));
        assert!(journal.is_published(instance(1)));
    }

    #[test]
    fn what_is_remembered_must_stay_bounded() {
        let mut journal = connected();
        journal.published(&table(1, &[1]));
        journal.acked(1);
        for number in 2..3_000 {
            journal.published(&table(number, &[number.into()]));
        }
        assert!(journal.tables.len() <= UNACKED_MAX);
        assert_eq!(journal.status().serving, BTreeSet::from([instance(1)]));
        journal.acked(2_999);
        journal.retired(2_999, BTreeMap::new());
        assert!(journal.last_in.len() <= 1, "{}", journal.last_in.len());
    }
}

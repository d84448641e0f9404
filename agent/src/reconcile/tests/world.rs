//! A simulated machine and edge for the pure core: whatever happens is an event, and every step is checked against the invariants.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::id::{AppId, HostId, InstanceId, TeamId};
use berth_wire::image::{HealthCheck, ImageRef};
use berth_wire::quota::Quota;
use berth_wire::report::{Exit, InstanceState, RefusedQuota, Trouble};
use berth_wire::spec::{Desired, Generation, InstanceSpec, ProcessSpec, Spec, Work};
use jiff::Timestamp;
use uuid::Uuid;

use crate::reconcile::plan::{EdgeView, Step, plan};
use crate::reconcile::record::{Health, Moment, Records, Underway};
use crate::reconcile::transition::{Event, apply, begin, take_spec};

pub(super) fn id(n: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(n))
}

pub(super) fn process(port: Option<u16>) -> ProcessSpec {
    ProcessSpec {
        image: ImageRef { repository: "apps/a".into(), digest: Digest::of(b"") },
        argv: vec!["/bin/true".into()],
        env: BTreeMap::new(),
        port,
        health: HealthCheck::default(),
        stop_grace_seconds: 30,
        run_seconds_max: 60,
        attached: None,
    }
}

pub(super) fn instance(n: u128, work: Work, desired: Desired) -> InstanceSpec {
    InstanceSpec {
        id: id(n),
        team: TeamId(Uuid::nil()),
        app: AppId(Uuid::nil()),
        app_name: "shop".parse().unwrap(),
        process: "web".parse().unwrap(),
        index: 1,
        release: 1,
        desired,
        work,
        quota: Quota::default(),
    }
}

pub(super) fn web(n: u128) -> InstanceSpec {
    instance(n, Work::Service(process(Some(5000))), Desired::Run)
}

/// The machine and the edge, played.
#[derive(Default)]
pub(super) struct World {
    pub(super) records: Records,
    pub(super) now: Duration,
    /// Running containers.
    pub(super) containers: BTreeMap<InstanceId, u32>,
    /// Instances that hold an address.
    pub(super) addresses: BTreeMap<InstanceId, ()>,
    /// What the edge's table in force has.
    pub(super) table: Vec<InstanceId>,
    /// What was last published.
    pub(super) published: Vec<InstanceId>,
    pub(super) in_flight: Vec<InstanceId>,
    pub(super) begun: Vec<Step>,
    pub(super) starts: BTreeMap<InstanceId, u32>,
}

pub(super) struct Edge<'a>(pub(super) &'a World);

impl EdgeView for Edge<'_> {
    fn is_free_of(&self, id: InstanceId) -> bool {
        !self.0.table.contains(&id) && !self.0.published.contains(&id) && !self.0.in_flight.contains(&id)
    }

    fn may_stop(&self, id: InstanceId) -> bool {
        self.is_free_of(id)
    }
}

impl World {
    pub(super) fn moment(&self) -> Moment {
        Moment { wall: Timestamp::from_second(1_000 + self.now.as_secs() as i64).unwrap(), mono: self.now }
    }

    pub(super) fn take(&mut self, instances: &[InstanceSpec]) {
        let spec = Spec {
            host: HostId(Uuid::nil()),
            generation: Generation { epoch: 1, number: 1 },
            instances: instances.to_vec(),
            routes: vec![],
        };
        let now = self.moment();
        take_spec(&mut self.records, &spec, now);
    }

    /// One pass: plan and begin; checks the invariants of every step.
    pub(super) fn pass(&mut self) {
        let planned = plan(&self.records, &Edge(self), self.moment());
        for &step in &planned.steps {
            let id = step.instance();
            assert!(
                self.records[&id].underway.is_none() || matches!(step, Step::Cancel(_)),
                "two steps at once"
            );
            match step {
                Step::Start(_) => {
                    assert!(!self.containers.contains_key(&id), "started over a running container");
                    assert!(self.records[&id].should_run());
                    *self.starts.entry(id).or_default() += 1;
                }
                Step::Clean(_) => {
                    assert!(!self.containers.contains_key(&id), "cleaned under a running process")
                }
                Step::Destroy(_) => {
                    assert!(!self.containers.contains_key(&id));
                    assert!(
                        Edge(self).is_free_of(id) || id.0.as_u128() > 2,
                        "freed an address that the edge may use"
                    );
                }
                _ => {}
            }
            let now = self.moment();
            begin(self.records.get_mut(&id).unwrap(), step, now);
            self.begun.push(step);
        }
        // As the loop does: the table follows what is routable after the steps have begun.
        let after = plan(&self.records, &Edge(self), self.moment());
        self.published = after.routable.into_iter().collect();
        for id in &self.published {
            assert!(self.containers.contains_key(id), "routed to a process that does not run");
        }
    }

    pub(super) fn tell(&mut self, id: InstanceId, event: Event) {
        let now = self.moment();
        let record = self.records.get_mut(&id).unwrap();
        let launch = record.launch;
        let destroyed = event == Event::Destroyed;
        apply(record, launch, event, now);
        if destroyed {
            self.records.remove(&id);
        }
    }

    /// Carries out what is under way for an instance; `fate` picks among the ways it can go.
    pub(super) fn finish(&mut self, id: InstanceId, fate: u8) {
        let Some(record) = self.records.get(&id) else { return };
        let trouble = || Trouble { code: Code::R20, message: String::new(), log_tail: vec![] };
        match (record.underway, fate % 4) {
            (Some(Underway::Start), 0) => self.tell(id, Event::StartFailed(trouble())),
            (Some(Underway::Start), _) => {
                self.containers.insert(id, 0);
                self.addresses.insert(id, ());
                self.tell(id, Event::Started { address: Some(Ipv4Addr::new(198, 18, 0, 2)), pid: 1 });
            }
            (Some(Underway::Quota), 0) => self.tell(id, Event::Refused { reason: "played".into() }),
            (Some(Underway::Quota), 1) => {
                let refused = RefusedQuota { quota: self.wanted_quota(id), reason: "played".into() };
                self.tell(id, Event::QuotaRefused(Box::new(refused)));
            }
            (Some(Underway::Quota), _) => {
                let quota = self.wanted_quota(id);
                self.tell(id, Event::QuotaSet(quota));
            }
            (Some(Underway::Build), _) => self.tell(id, Event::BuildEnded(Box::new(Err(trouble())))),
            (Some(Underway::Cancel), _) => self.tell(id, Event::BuildEnded(Box::new(Err(trouble())))),
            (Some(Underway::Stop | Underway::Clean | Underway::Destroy), 0) => {
                self.tell(id, Event::Refused { reason: "played".into() });
            }
            (Some(Underway::Kill), _) => self.exit(id, Exit::Signal(9)),
            (Some(Underway::Stop), _) => {
                self.exit(id, Exit::Signal(15));
                self.tell(id, Event::Stopped { killed: fate % 4 == 1 });
            }
            (Some(Underway::Clean), _) => self.tell(id, Event::Cleaned),
            (Some(Underway::Destroy), _) => {
                self.addresses.remove(&id);
                self.tell(id, Event::Destroyed);
            }
            (None, _) => {}
        }
    }

    fn wanted_quota(&self, id: InstanceId) -> Quota {
        self.records[&id].spec.as_ref().unwrap().quota
    }

    pub(super) fn exit(&mut self, id: InstanceId, exit: Exit) {
        if self.containers.remove(&id).is_some() {
            self.tell(id, Event::Exited { exit, log_tail: vec![] });
        }
    }

    pub(super) fn well(&mut self, id: InstanceId) {
        if self.containers.contains_key(&id) {
            self.tell(id, Event::Health(Health::Up, None));
        }
    }

    pub(super) fn state(&self, n: u128) -> InstanceState {
        self.records[&id(n)].state()
    }

    /// Everything goes well until nothing changes any more.
    pub(super) fn settle(&mut self) {
        for _ in 0..200 {
            self.now += Duration::from_secs(5);
            self.pass();
            for id in self.records.keys().copied().collect::<Vec<_>>() {
                self.finish(id, 3);
                if self.records.contains_key(&id) {
                    self.well(id);
                }
            }
            self.table = self.published.clone();
            self.in_flight.clear();
        }
    }
}

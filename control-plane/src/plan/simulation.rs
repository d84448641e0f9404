//! The planner against made-up hosts and people, by property: whatever they do in whatever order, no host is given more
//! than it has, no instance that serves is taken away before another serves in its place, and in the end there is what
//! was asked for.

use std::collections::{BTreeMap, BTreeSet};

use berth_wire::api::ReleaseStatus;
use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::id::{AppId, HostId, InstanceId, TeamId};
use berth_wire::image::{AppManifest, ImageRef};
use berth_wire::name::ProcessType;
use berth_wire::quota::{Bounds, MIB, Quota};
use berth_wire::report::{EdgeReport, Exit, HostFacts, InstanceReport, InstanceState, RefusedQuota, Trouble};
use berth_wire::spec::Desired;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::place::{capacity, floors};
use super::specs::spec_of;
use super::{AppState, Settings, State, Step, plan};
use crate::domain::app::AppRow;
use crate::domain::formation::Scale;
use crate::domain::host::HostRow;
use crate::domain::placed::Placed;
use crate::domain::release::{AUTOMATIC, Beginnings, Release, Why, draft, head};

/// What people and machines do.
#[derive(Debug, Clone)]
enum Act {
    Deploy {
        good: bool,
    },
    Scale {
        web: u32,
        worker: u32,
    },
    Quota {
        memory_mib: u64,
    },
    Restart,
    /// The host gets round to some of its instances.
    Host {
        which: u64,
    },
    /// A healthy instance dies.
    Crash {
        which: usize,
    },
    Pass {
        seconds: i64,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => any::<bool>().prop_map(|good| Act::Deploy { good }),
        2 => (0..5_u32, 0..3_u32).prop_map(|(web, worker)| Act::Scale { web, worker }),
        1 => (64..700_u64).prop_map(|memory_mib| Act::Quota { memory_mib }),
        1 => Just(Act::Restart),
        12 => any::<u64>().prop_map(|which| Act::Host { which }),
        1 => (0..8_usize).prop_map(|which| Act::Crash { which }),
        4 => (1..10_i64).prop_map(|seconds| Act::Pass { seconds }),
    ];
    prop::collection::vec(act, 1..80)
}

struct World {
    state: State,
    /// All releases, settled ones too.
    releases: Vec<Release>,
    bad_images: BTreeSet<Digest>,
    now: Timestamp,
    ids: u128,
}

impl World {
    fn new() -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let facts = HostFacts {
            cpu_millis: 4_000,
            memory_bytes: 2_000 * MIB,
            disk_bytes: 100_000 * MIB,
            pids: 32_768,
            ..HostFacts::default()
        };
        let host = HostRow {
            id: HostId(Uuid::from_u128(1)),
            name: "h1".into(),
            seen_at: Some(now),
            facts,
            edge: EdgeReport { connected: true, ..EdgeReport::default() },
            events_received: 0,
        };
        let app = AppRow {
            id: AppId(Uuid::from_u128(2)),
            team: TeamId(Uuid::from_u128(3)),
            name: "shop".parse().unwrap(),
            created_at: now,
            deleted_at: None,
            domains: vec!["shop.localhost".parse().unwrap()],
        };
        let app = AppState { app, live: vec![], fallback: None, config: BTreeMap::new(), instances: vec![] };
        let settings = Settings {
            build_quota: Quota::default(),
            build_seconds_max: 900,
            release_command_seconds_max: 600,
        };
        let state = State { hosts: vec![host], apps: vec![app], builds: vec![], settings };
        Self { state, releases: vec![], bad_images: BTreeSet::new(), now, ids: 100 }
    }

    fn make(&mut self, why: Why, by: &str) {
        let base = head(&self.releases).map(|r| r.content.clone());
        let Some(made) = draft(why, base.as_ref(), &Beginnings::default()) else { return };
        self.releases.push(Release {
            app: self.state.apps[0].app.id,
            version: self.releases.len() as u64 + 1,
            created_at: self.now,
            description: made.description,
            by: by.into(),
            status: made.status,
            switched_at: None,
            trouble: None,
            content: made.content,
            runs_command: made.runs_command,
        });
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Deploy { good } => {
                let digest = Digest::of(&self.releases.len().to_le_bytes());
                if !good {
                    self.bad_images.insert(digest.clone());
                }
                let processes = ["web", "worker"].map(|p| (p.parse().unwrap(), "run".to_owned()));
                let manifest = AppManifest { processes: processes.into(), ..AppManifest::default() };
                let image = ImageRef { repository: "apps/2".into(), digest };
                self.make(Why::Deploy { image, manifest, commit: None, build: None }, "tester");
            }
            Act::Scale { web, worker } => {
                self.scale(|process, scale| scale.count = if process.is_web() { *web } else { *worker });
            }
            Act::Quota { memory_mib } => {
                let memory_bytes = Bounds::new(memory_mib * MIB, memory_mib * MIB);
                self.scale(|_, scale| scale.quota = Quota { memory_bytes, ..scale.quota });
            }
            Act::Restart => self.make(Why::Restart { nonce: self.releases.len() as u64 + 1 }, "tester"),
            Act::Host { which } => self.host(*which),
            Act::Crash { which } => self.crash(*which),
            Act::Pass { seconds } => self.now += SignedDuration::from_secs(*seconds),
        }
        self.state.hosts[0].seen_at = Some(self.now);
        self.settle();
    }

    fn scale(&mut self, change: impl Fn(&ProcessType, &mut Scale)) {
        let Some(head) = head(&self.releases) else { return };
        let mut formation = head.content.formation.clone();
        for (process, scale) in &mut formation {
            change(process, scale);
        }
        if formation != head.content.formation {
            self.make(Why::Scale { formation, description: "scale".into() }, "tester");
        }
    }

    /// Each instance whose bit is set goes one state further; then the edge gets the table.
    fn host(&mut self, which: u64) {
        let now = self.now;
        let spec = spec_of(&self.state, self.state.hosts[0].id);
        let bad = &self.bad_images;
        for (i, placed) in self.state.apps[0].instances.iter_mut().enumerate() {
            if which >> (i % 64) & 1 == 1 {
                let broken = placed.service().is_some_and(|p| bad.contains(&p.image.digest));
                placed.report = Some(turn(placed, broken, now));
            }
        }
        let healthy = |id: &InstanceId| {
            let placed = self.state.apps[0].instances.iter().find(|p| p.spec.id == *id);
            placed.and_then(|p| p.report.as_ref()).is_some_and(|r| r.state == InstanceState::Healthy)
        };
        self.state.hosts[0].edge.serving =
            spec.routes.iter().flat_map(|r| r.instances.iter().copied()).filter(healthy).collect();
    }

    fn crash(&mut self, which: usize) {
        let now = self.now;
        let mut healthy = self.state.apps[0]
            .instances
            .iter_mut()
            .filter_map(|p| p.report.as_mut())
            .filter(|r| r.state == InstanceState::Healthy);
        if let Some(report) = healthy.nth(which) {
            report.state = InstanceState::BackingOff;
            report.since = now;
            report.last_exit = Some(Exit::Code(1));
        }
    }

    /// Web instances that answer requests and are not told to stop.
    fn serving(&self) -> usize {
        let serving = &self.state.hosts[0].edge.serving;
        let instances = &self.state.apps[0].instances;
        let counts = |p: &&Placed| {
            p.runs() && p.spec.process.is_web() && p.is_ready(serving.contains(&p.spec.id), self.now)
        };
        instances.iter().filter(counts).count()
    }

    /// How many `web` the release being gone to wants.
    fn wanted(&self) -> usize {
        let live = |s: ReleaseStatus| self.releases.iter().rev().find(|r| r.status == s);
        let target = live(ReleaseStatus::Rolling).or_else(|| live(ReleaseStatus::Current));
        target.map_or(0, |r| r.content.formation[&ProcessType::web()].count as usize)
    }

    fn settle(&mut self) {
        for _ in 0..16 {
            self.refresh();
            let before = self.serving();
            let mut ids = self.ids;
            let plan = plan(&self.state, self.now, &mut || {
                ids += 1;
                InstanceId(Uuid::from_u128(ids))
            });
            self.ids = ids;
            if plan.steps.is_empty() {
                return self.check();
            }
            let wanted = self.wanted();
            for step in plan.steps {
                self.apply(step);
            }
            assert!(self.serving() >= before.min(wanted), "{before} served, {} do", self.serving());
        }
        panic!("the planner does not come to rest");
    }

    fn refresh(&mut self) {
        let live = |r: &&Release| {
            matches!(r.status, ReleaseStatus::Releasing | ReleaseStatus::Rolling | ReleaseStatus::Current)
        };
        let app = &mut self.state.apps[0];
        app.live = self.releases.iter().filter(live).cloned().collect();
        let current = self.releases.iter().rev().find(|r| r.status == ReleaseStatus::Current);
        app.fallback = current.and_then(|current| {
            let served = |r: &&Release| {
                r.version < current.version && r.switched_at.is_some() && r.status != ReleaseStatus::Failed
            };
            self.releases.iter().rev().find(served).cloned()
        });
    }

    fn apply(&mut self, step: Step) {
        let instances = &mut self.state.apps[0].instances;
        let find = |instances: &mut Vec<Placed>, id| {
            instances.iter().position(|p| p.spec.id == id).expect("steps name instances that exist")
        };
        match step {
            Step::Place(placed) => instances.push(*placed),
            Step::Drain { instance, .. } => {
                let i = find(instances, instance);
                instances[i].spec.desired = Desired::Drain;
            }
            Step::Adopt { instance, release } => {
                let i = find(instances, instance);
                instances[i].release = release;
            }
            Step::Quota { instance, quota } => {
                let i = find(instances, instance);
                instances[i].spec.quota = quota;
            }
            Step::Remove(instance) => {
                let i = find(instances, instance);
                instances.remove(i);
            }
            Step::Release { version, status, switched_at, trouble, .. } => {
                let release = self.releases.iter_mut().find(|r| r.version == version).unwrap();
                (release.status, release.switched_at, release.trouble) = (status, switched_at, trouble);
            }
            Step::Make { why, by, .. } => {
                assert_eq!(by, AUTOMATIC);
                self.make(*why, &by);
            }
            Step::Build(_) | Step::Say(..) => {}
        }
    }

    fn check(&self) {
        let host = &self.state.hosts[0];
        let instances = &self.state.apps[0].instances;
        for (i, has) in capacity(&host.facts).into_iter().enumerate() {
            let reserved: u64 = instances.iter().map(|p| floors(&p.spec.quota)[i]).sum();
            assert!(reserved <= has, "resource {i}: {reserved} of {has} reserved");
        }
        let ids: BTreeSet<_> = instances.iter().map(|p| p.spec.id).collect();
        assert_eq!(ids.len(), instances.len());
        let count =
            |wanted: &[ReleaseStatus]| self.releases.iter().filter(|r| wanted.contains(&r.status)).count();
        assert!(count(&[ReleaseStatus::Current]) <= 1);
        assert!(count(&[ReleaseStatus::Releasing, ReleaseStatus::Rolling]) <= 1);
        let spec = spec_of(&self.state, host.id);
        for id in &spec.routes[0].instances {
            assert!(spec.instances.iter().any(|i| i.id == *id && i.desired == Desired::Run));
        }
    }

    /// Lets everything happen that is going to happen.
    fn rest(&mut self) {
        for _ in 0..150 {
            self.act(&Act::Host { which: u64::MAX });
            self.act(&Act::Pass { seconds: 2 });
        }
    }
}

fn turn(placed: &Placed, broken: bool, now: Timestamp) -> InstanceReport {
    use InstanceState as S;
    let before = placed.report.clone().unwrap_or(InstanceReport {
        id: placed.spec.id,
        state: S::Preparing,
        since: now,
        restarts: 0,
        last_exit: None,
        trouble: None,
        built: None,
        quota: None,
        refused: None,
    });
    let state = match (placed.spec.desired, before.state) {
        _ if placed.report.is_none() => S::Preparing,
        (Desired::Drain, S::Healthy) => S::Draining,
        (Desired::Drain, S::Draining) => S::Stopping,
        (Desired::Drain, _) => S::Exited,
        (Desired::Run, S::Preparing) => S::Starting,
        (Desired::Run, S::Starting) if broken => S::BackingOff,
        (Desired::Run, S::BackingOff) => S::Preparing,
        (Desired::Run, _) => S::Healthy,
    };
    let trouble = (broken && state == S::BackingOff).then(|| Trouble {
        code: Code::R16,
        message: "exited at once".into(),
        log_tail: vec![],
    });
    let restarts = before.restarts + u32::from(before.state == S::BackingOff && state == S::Preparing);
    let since = if state == before.state { before.since } else { now };
    // Every third instance cannot be changed while it runs.
    let stubborn = placed.spec.id.0.as_u128().is_multiple_of(3);
    let (mut quota, mut refused) = (before.quota, None);
    match before.quota {
        Some(in_force) if in_force != placed.spec.quota && stubborn => {
            refused = Some(RefusedQuota { quota: placed.spec.quota, reason: "played".into() });
        }
        _ => quota = matches!(state, S::Starting | S::Healthy).then_some(placed.spec.quota),
    }
    InstanceReport { state, since, restarts, trouble, quota, refused, ..before }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_serving_instances_must_stay_until_others_serve(acts in acts()) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
        }
        world.rest();
        let rolling = world.releases.iter().find(|r| r.status == ReleaseStatus::Rolling);
        if let Some(waiting) = rolling {
            // The only thing that a release may wait for with a host that does its work.
            prop_assert_eq!(waiting.trouble.as_ref().map(|t| t.code), Some(Code::R24));
            return Ok(());
        }
        let Some(current) = world.releases.iter().find(|r| r.status == ReleaseStatus::Current) else {
            prop_assert!(world.state.apps[0].instances.is_empty());
            return Ok(());
        };
        if current.trouble.is_some() {
            return Ok(());
        }
        for (process, scale) in &current.content.formation {
            let mut running: Vec<u32> = world.state.apps[0]
                .instances
                .iter()
                .filter(|p| p.spec.process == *process)
                .map(|p| p.spec.index)
                .collect();
            running.sort_unstable();
            prop_assert_eq!(running, (1..=scale.count).collect::<Vec<_>>());
        }
        prop_assert!(world.serving() == world.wanted());
    }
}

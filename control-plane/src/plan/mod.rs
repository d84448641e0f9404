//! The planner: (state, reports, now) -> steps, and what each host's spec then is. Pure and level-triggered: it looks at
//! all there is each time, so a repeat is harmless and a lost wake-up costs only the time until the next.
//!
//! | file | decides |
//! |---|---|
//! | [`place`] | on which host there is room, and why not on the others |
//! | [`rollout`] | which release an app is going to, and whether it got there |
//! | [`exchange`] | old instances for new ones of one process type, make before break |
//! | [`command`] | the `release:` command before a rollout |
//! | [`one_off`] | when a command that somebody ran is over |
//! | [`build`] | which host builds what, and what came of it |
//! | [`specs`] | the spec of each host after the steps |
//!
//! One call does what can be done at once. Steps may make more steps possible: the caller applies them and calls again
//! until there are none.

pub mod build;
pub mod command;
pub mod exchange;
pub mod one_off;
pub mod place;
pub mod rollout;
pub mod specs;

#[cfg(test)]
mod simulation;

use std::collections::HashSet;

use berth_wire::api::{Event, ReleaseStatus};
use berth_wire::id::{AppId, InstanceId};
use berth_wire::quota::Quota;
use berth_wire::report::Trouble;
use jiff::Timestamp;

use crate::domain::app::AppRow;
use crate::domain::build::BuildRow;
use crate::domain::host::HostRow;
use crate::domain::placed::Placed;
use crate::domain::release::{ConfigVars, Release, Why};
use place::Room;

/// All that the planner looks at.
#[derive(Debug, Clone)]
pub struct State {
    /// Every host.
    pub hosts: Vec<HostRow>,
    /// Every app, deleted ones that still have something to stop included.
    pub apps: Vec<AppState>,
    /// Every build that has not ended, oldest first.
    pub builds: Vec<BuildRow>,
    /// Numbers that the operator chose.
    pub settings: Settings,
}

/// One app.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The app.
    pub app: AppRow,
    /// Its releases that serve or are on their way, oldest first.
    pub live: Vec<Release>,
    /// The release that served before the current one: where an automatic rollback goes.
    pub fallback: Option<Release>,
    /// Config vars of the release it stands on, which private steps of a build see.
    pub config: ConfigVars,
    /// Its instances, oldest first.
    pub instances: Vec<Placed>,
}

/// Numbers that the operator chose.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What one build may use.
    pub build_quota: Quota,
    /// The longest a build may take, in seconds.
    pub build_seconds_max: u32,
    /// The longest a `release:` command may take, in seconds.
    pub release_command_seconds_max: u32,
}

/// One thing to be changed in the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A new instance.
    Place(Box<Placed>),
    /// An instance is to stop.
    Drain {
        /// Which.
        instance: InstanceId,
        /// Why.
        reason: String,
    },
    /// An instance serves on in a newer release.
    Adopt {
        /// Which.
        instance: InstanceId,
        /// In which.
        release: u64,
    },
    /// A running instance gets another quota.
    Quota {
        /// Which.
        instance: InstanceId,
        /// What it may use from now on.
        quota: Quota,
    },
    /// An instance that has ended leaves its host's spec.
    Remove(InstanceId),
    /// A release stands elsewhere now.
    Release {
        /// Which app.
        app: AppId,
        /// Which.
        version: u64,
        /// Where.
        status: ReleaseStatus,
        /// When it began to serve.
        switched_at: Option<Timestamp>,
        /// Why it failed, or what it waits for.
        trouble: Option<Trouble>,
    },
    /// A release is to be made.
    Make {
        /// Which app.
        app: AppId,
        /// Out of what.
        why: Box<Why>,
        /// Who asked.
        by: String,
        /// The build it comes from, to be told its number.
        build: Option<Box<BuildRow>>,
    },
    /// A build stands elsewhere now.
    Build(Box<BuildRow>),
    /// Something people want to know.
    Say(AppId, Event),
}

/// What one look came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What is to be changed, in this order.
    pub steps: Vec<Step>,
    /// Deleted apps that have nothing left to stop: their files, then their rows can go.
    pub purgeable: Vec<AppId>,
    /// Whether time alone may change something soon: a settling worker, a watch window, a boot timeout.
    pub unsettled: bool,
}

/// What the parts of one look share.
pub(crate) struct Look<'a> {
    state: &'a State,
    now: Timestamp,
    serving: HashSet<InstanceId>,
    room: Room,
    new_id: &'a mut dyn FnMut() -> InstanceId,
    plan: Plan,
}

impl Look<'_> {
    fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    fn say(&mut self, app: AppId, process: &str, trouble: Option<&Trouble>, message: String) {
        let event =
            Event { at: self.now, process: process.to_owned(), code: trouble.map(|t| t.code), message };
        self.step(Step::Say(app, event));
    }

    fn is_serving(&self, placed: &Placed) -> bool {
        self.serving.contains(&placed.spec.id)
    }

    fn is_ready(&self, placed: &Placed) -> bool {
        placed.is_ready(self.is_serving(placed), self.now)
    }
}

/// Looks once.
pub fn plan(state: &State, now: Timestamp, new_id: &mut dyn FnMut() -> InstanceId) -> Plan {
    let serving = state
        .hosts
        .iter()
        .filter(|host| host.edge.connected)
        .flat_map(|host| host.edge.serving.iter().copied())
        .collect();
    let placed = state.apps.iter().flat_map(|app| &app.instances);
    let room = Room::new(&state.hosts, placed, now);
    let mut look = Look { state, now, serving, room, new_id, plan: Plan::default() };
    for app in &state.apps {
        rollout::plan_app(&mut look, app);
    }
    for build in &state.builds {
        build::plan_build(&mut look, build);
    }
    look.plan
}

//! Desired state into specs: loads everything, asks the planner, applies its steps and writes the specs that changed,
//! all in one transaction, so that a kill leaves either the old or the new.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use berth_wire::id::{AppId, InstanceId};
use berth_wire::spec::Generation;
use jiff::Timestamp;
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::app::App;
use crate::plan::rollout::WATCH;
use crate::plan::{self, AppState, Settings, State, Step, specs::spec_of};
use crate::store::{Store, StoreError, apps, builds, events, hosts, instances, releases, specs};
use crate::tasks::purge_app::purge_app;

/// By timer when something may change with time alone: a worker settles in three seconds.
const EVERY_UNSETTLED: Duration = Duration::from_millis(500);

/// By timer otherwise: only a lost wake-up or a host that fell silent is waiting for it.
const EVERY: Duration = Duration::from_secs(10);

/// Most looks in one transaction. A rollout needs four in a row at most (overtake, fail, make, place); one that needs
/// more goes round in circles, and the rest waits for the next timer.
const LOOKS_MAX: usize = 16;

/// The loop.
pub async fn run(app: App) {
    let mut wake = app.wakes.planner();
    loop {
        let begun = Instant::now();
        let planned = plan_once(&app).await;
        app.metrics.planned(begun.elapsed(), planned.is_ok());
        let pause = match planned {
            Ok(outcome) => {
                for gone in outcome.purgeable {
                    purge_app(&app, gone).await;
                }
                if outcome.unsettled { EVERY_UNSETTLED } else { EVERY }
            }
            Err(error) => {
                tracing::error!(%error, "planning failed; it is tried again");
                EVERY_UNSETTLED
            }
        };
        // A closed channel means that the program ends.
        if let Ok(Err(_)) = tokio::time::timeout(pause, wake.changed()).await {
            return;
        }
    }
}

/// What one planning came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Whether time alone may change something soon.
    pub unsettled: bool,
    /// Deleted apps that have nothing left to stop.
    pub purgeable: Vec<AppId>,
}

/// Plans until there is nothing more to do.
///
/// # Errors
/// The store failed; then nothing was changed.
pub async fn plan_once(app: &App) -> Result<Outcome, StoreError> {
    let store = &app.store;
    let now = app.clock.now();
    let settings = Settings {
        build_quota: app.config.build_quota,
        build_seconds_max: app.config.build_seconds_max,
        release_command_seconds_max: app.config.release_command_seconds_max,
    };
    let mut tx = store.begin().await?;
    let mut outcome = Outcome::default();
    let mut changed = false;
    let mut looks = 0;
    let state = loop {
        let state = load(store, &mut tx, settings, now).await?;
        let plan = plan::plan(&state, now, &mut || InstanceId(Uuid::now_v7()));
        outcome.unsettled = plan.unsettled;
        outcome.purgeable = plan.purgeable;
        looks += 1;
        if plan.steps.is_empty() {
            break state;
        }
        if looks == LOOKS_MAX {
            tracing::warn!(steps = plan.steps.len(), "planning does not come to rest");
            outcome.unsettled = true;
            break state;
        }
        changed = true;
        for step in plan.steps {
            apply(store, &mut tx, step, now).await?;
        }
    };
    changed |= write_specs(store, &mut tx, &state).await?;
    tx.commit().await?;
    if changed {
        app.wakes.changed();
    }
    Ok(outcome)
}

async fn load(
    store: &Store,
    conn: &mut SqliteConnection,
    settings: Settings,
    now: Timestamp,
) -> Result<State, StoreError> {
    let open = builds::list_open(conn).await?;
    let mut live: HashMap<AppId, Vec<_>> = HashMap::new();
    for release in releases::list_live(store, conn).await? {
        live.entry(release.app).or_default().push(release);
    }
    let mut placed: HashMap<AppId, Vec<_>> = HashMap::new();
    for instance in instances::list_all(store, conn).await? {
        placed.entry(instance.spec.app).or_default().push(instance);
    }
    let mut states = Vec::new();
    for app in apps::list_all(conn).await? {
        let live = live.remove(&app.id).unwrap_or_default();
        let watched = live.iter().find(|r| r.switched_at.is_some_and(|at| now.duration_since(at) < WATCH));
        let fallback = match watched {
            Some(current) => releases::find_served_before(store, conn, app.id, current.version).await?,
            None => None,
        };
        let config = if open.iter().any(|build| build.app == app.id) {
            match releases::head_find(store, conn, app.id).await? {
                Some(head) => head.content.config,
                None => apps::beginnings_find(store, conn, app.id).await?.config,
            }
        } else {
            Default::default()
        };
        let instances = placed.remove(&app.id).unwrap_or_default();
        states.push(AppState { app, live, fallback, config, instances });
    }
    Ok(State { hosts: hosts::list(conn).await?, apps: states, builds: open, settings })
}

async fn apply(
    store: &Store,
    conn: &mut SqliteConnection,
    step: Step,
    now: Timestamp,
) -> Result<(), StoreError> {
    match step {
        Step::Place(placed) => instances::insert(store, conn, &placed).await,
        Step::Drain { instance, reason } => {
            instances::desired_update(conn, instance, berth_wire::spec::Desired::Drain, &reason).await
        }
        Step::Adopt { instance, release } => instances::release_update(conn, instance, release).await,
        Step::Quota { instance, quota } => instances::quota_update(store, conn, instance, quota).await,
        Step::Remove(instance) => instances::delete(conn, instance).await,
        Step::Release { app, version, status, switched_at, trouble } => {
            releases::update(conn, (app, version), status, switched_at, trouble.as_ref()).await
        }
        Step::Make { app, why, by, build } => {
            let made = releases::create(store, conn, app, *why, &by, now).await?;
            match (build, made) {
                (Some(mut build), Some(made)) => {
                    build.release = Some(made.version);
                    builds::update(conn, &build).await
                }
                _ => Ok(()),
            }
        }
        Step::Build(build) => builds::update(conn, &build).await,
        Step::Say(app, event) => events::insert(conn, app, &event).await,
    }
}

/// Writes the specs whose content changed, each with the next generation.
async fn write_specs(store: &Store, conn: &mut SqliteConnection, state: &State) -> Result<bool, StoreError> {
    let mut changed = false;
    for host in &state.hosts {
        let mut spec = spec_of(state, host.id);
        let head = specs::head_find(conn, host.id).await?;
        let number = head.as_ref().map_or(0, |(number, _)| *number);
        if head.is_some_and(|(_, digest)| digest == spec.content_digest().as_str()) {
            continue;
        }
        spec.generation = Generation { epoch: store.epoch(), number: number + 1 };
        specs::put(store, conn, &spec).await?;
        changed = true;
    }
    Ok(changed)
}

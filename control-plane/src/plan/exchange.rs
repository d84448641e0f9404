//! Old instances for new ones of one process type, make before break:
//!
//! 1. An instance that does what the target wants is kept, whichever release made it. If only its quota differs, it gets
//!    the new one while it runs; it counts as old where its host has no room for that, or says that the running
//!    container cannot be given it.
//! 2. New ones come up beside the old: all that are wanted, but not more than a surge beyond what there was.
//! 3. An old one drains when the ready ones and the old ones together are more than wanted: so at every moment as many
//!    work as before, or as wanted, whichever is less.

use std::cmp::Reverse;

use berth_wire::name::ProcessType;
use berth_wire::quota::Quota;
use berth_wire::report::{InstanceState, Trouble};
use berth_wire::spec::{Desired, InstanceSpec, Work};

use super::{AppState, Look, Step};
use crate::domain::environment::{Which, fingerprint, process_spec};
use crate::domain::formation::Scale;
use crate::domain::placed::Placed;
use crate::domain::release::Release;

/// How far an exchange of one process type is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Every wanted instance is ready and every old one was told to stop.
    pub done: bool,
    /// Those that do what the target wants.
    pub kept: Vec<Placed>,
    /// Why the next one cannot be placed.
    pub waits: Option<Trouble>,
}

/// What an exchange goes to.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The release.
    pub release: &'a Release,
    /// Of which process type.
    pub process: &'a ProcessType,
    /// How many, with which quota.
    pub scale: Scale,
    /// Instances that releases up to this one made have been up before; one of them that is unwell now is no reason
    /// to hold a release back.
    pub proven: u64,
}

/// At most this many more than before at once: a quarter, and at least one.
pub(crate) fn surge(count: u32) -> usize {
    (count as usize).div_ceil(4).max(1)
}

/// Takes the next steps towards the target.
pub(crate) fn exchange(look: &mut Look<'_>, app: &AppState, target: Target<'_>) -> Progress {
    let Target { release, process, scale, .. } = target;
    let print = fingerprint(&release.content, process);
    let (kept, old) = sort(look, app, process, &print, scale);
    let mut progress = Progress::default();
    let ready = kept.iter().filter(|p| look.is_ready(p)).count();

    let most = (scale.count as usize).max(old.len()) + surge(scale.count);
    let mut allowed = most.saturating_sub(kept.len() + old.len());
    for index in 1..=scale.count {
        if allowed == 0 {
            break;
        }
        if kept.iter().any(|p| p.spec.index == index) {
            continue;
        }
        match place(look, app, target, index, &print) {
            Ok(()) => allowed -= 1,
            Err(trouble) => {
                progress.waits = Some(trouble);
                break;
            }
        }
    }

    let drained = drain(look, release, &kept, old, ready, scale.count as usize);
    let up = |p: &Placed| p.spec.release <= target.proven || look.is_ready(p);
    progress.done =
        drained && kept.len() == scale.count as usize && kept.iter().all(|p| up(p) && has(p, &scale.quota));
    progress.kept = kept;
    progress
}

/// Which running instances do what is wanted, and which do not. Of two that do, the one that serves is kept.
fn sort(
    look: &mut Look<'_>,
    app: &AppState,
    process: &ProcessType,
    print: &str,
    scale: Scale,
) -> (Vec<Placed>, Vec<Placed>) {
    let mut all: Vec<&Placed> = app
        .instances
        .iter()
        .filter(|p| p.runs() && p.service().is_some() && p.spec.process == *process)
        .collect();
    all.sort_by_key(|p| (Reverse(look.is_serving(p)), p.spec.id));
    let (mut kept, mut old) = (Vec::<Placed>::new(), Vec::new());
    for placed in all {
        // A service that its host gave up on is replaced, also where nothing else changes.
        let ended = placed.report.as_ref().is_some_and(|r| r.state == InstanceState::Exited);
        let wanted = placed.fingerprint == print && (1..=scale.count).contains(&placed.spec.index) && !ended;
        let first = kept.iter().all(|k| k.spec.index != placed.spec.index);
        if wanted && first && adjust(look, placed, &scale.quota) {
            kept.push(placed.clone());
        } else {
            old.push(placed.clone());
        }
    }
    (kept, old)
}

/// Sees to it that a running instance gets the quota; whether it can keep running for that.
fn adjust(look: &mut Look<'_>, placed: &Placed, quota: &Quota) -> bool {
    let report = placed.report.as_ref();
    if report.and_then(|r| r.refused.as_ref()).is_some_and(|refused| refused.quota == *quota) {
        return false;
    }
    if placed.spec.quota == *quota {
        return true;
    }
    // An agent that does not say which quota is in force is one that cannot change it.
    if report.is_some_and(|r| r.state == InstanceState::Healthy && r.quota.is_none()) {
        return false;
    }
    let fits = look.room.resize(placed.host, &placed.spec.quota, quota);
    if fits {
        look.step(Step::Quota { instance: placed.spec.id, quota: *quota });
    }
    fits
}

/// Whether its host says that the quota is in force. One that has no container yet starts with it.
fn has(placed: &Placed, quota: &Quota) -> bool {
    let in_force = placed.report.as_ref().and_then(|report| report.quota);
    placed.spec.quota == *quota && in_force.is_none_or(|in_force| in_force == *quota)
}

fn place(
    look: &mut Look<'_>,
    app: &AppState,
    target: Target<'_>,
    index: u32,
    print: &str,
) -> Result<(), Trouble> {
    let Target { release, process, scale, .. } = target;
    let which = Which { app: &app.app.name, version: release.version, process, index };
    let Some(run) = process_spec(&release.content, which, 0) else { return Ok(()) };
    let (host, reason) = look.room.place(app.app.id, process, &scale.quota)?;
    let spec = InstanceSpec {
        id: (look.new_id)(),
        team: app.app.team,
        app: app.app.id,
        app_name: app.app.name.clone(),
        process: process.clone(),
        index,
        release: release.version,
        desired: Desired::Run,
        work: Work::Service(run),
        quota: scale.quota,
    };
    look.step(Step::Place(Box::new(Placed {
        spec,
        host,
        fingerprint: print.to_owned(),
        release: release.version,
        build: None,
        reason,
        created_at: look.now,
        report: None,
    })));
    Ok(())
}

/// Tells old ones to stop; whether none is left. One that has crashed, or never came up in a release newer than the
/// target (which then has failed), helps nobody and goes at once: its room may be what the new ones wait for.
fn drain(
    look: &mut Look<'_>,
    release: &Release,
    kept: &[Placed],
    old: Vec<Placed>,
    ready: usize,
    count: usize,
) -> bool {
    let (useless, mut working): (Vec<_>, Vec<_>) =
        old.into_iter().partition(|p| !look.is_ready(p) && (p.spec.release > release.version || p.is_down()));
    for placed in &useless {
        let reason = format!("it is not up, and v{} is wanted", release.version);
        look.step(Step::Drain { instance: placed.spec.id, reason });
    }
    // First those that do not work, then those whose successor is ready, then the highest index.
    let succeeded = |p: &Placed| kept.iter().any(|k| k.spec.index == p.spec.index && look.is_ready(k));
    working.sort_by_cached_key(|p| (look.is_ready(p), !succeeded(p), Reverse(p.spec.index)));
    let surplus = (ready + working.len()).saturating_sub(count).min(working.len());
    let left = working.len() - surplus;
    for placed in working.iter().take(surplus) {
        let reason = format!("v{} takes over", release.version);
        look.step(Step::Drain { instance: placed.spec.id, reason });
    }
    left == 0
}

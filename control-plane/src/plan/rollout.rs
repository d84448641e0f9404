//! Which release an app is going to, whether it got there, and back again if it did not. The states are drawn in
//! `domain/release.rs`.

use berth_wire::api::ReleaseStatus;
use berth_wire::code::Code;
use berth_wire::report::{InstanceState, Trouble};
use jiff::SignedDuration;

use super::command::{is_release_command, run_command};
use super::exchange::{Target, exchange};
use super::{AppState, Look, Step};
use crate::domain::environment::fingerprint;
use crate::domain::formation::Scale;
use crate::domain::placed::{Placed, RESTARTS_MAX, Verdict};
use crate::domain::release::{AUTOMATIC, Release, Why};

/// How long after the switch a release is watched: when it crashes in this time, the one before comes back by itself.
pub const WATCH: SignedDuration = SignedDuration::from_secs(30);

/// How long an instance may be unhealthy in the watch window before that counts as a crash: three checks of 5 s.
const UNHEALTHY: SignedDuration = SignedDuration::from_secs(15);

/// Takes the next steps for one app.
pub(crate) fn plan_app(look: &mut Look<'_>, app: &AppState) {
    remove_ended(look, app);
    if app.app.deleted_at.is_some() {
        return remove_app(look, app);
    }
    super::one_off::end_those_that_ended(look, app);
    let Some((next, current)) = supersede(look, app) else { return };
    drain_other_commands(look, app, next);
    if let Some(release) = next.filter(|r| r.status == ReleaseStatus::Releasing) {
        run_command(look, app, release);
    }
    let rolling = next.filter(|r| r.status == ReleaseStatus::Rolling);
    let proven = current.map_or(0, |current| current.version);
    if let Some(release) = rolling
        && let Some(trouble) = failure(look, app, release, proven)
    {
        return fail(look, release, trouble);
    }
    if next.is_none()
        && let Some(release) = current
        && watch(look, app, release)
    {
        return;
    }
    match rolling.or(current) {
        Some(release) => go_to(look, app, release, current),
        // Every release has failed: there is nothing to serve.
        None => drain_services(look, app, "no release of this app came up"),
    }
    look.plan.unsettled |= next.is_some();
}

/// Drained instances that have ended leave the spec.
fn remove_ended(look: &mut Look<'_>, app: &AppState) {
    for placed in app.instances.iter().filter(|p| !p.runs() && p.is_gone()) {
        look.step(Step::Remove(placed.spec.id));
    }
}

fn remove_app(look: &mut Look<'_>, app: &AppState) {
    for placed in app.instances.iter().filter(|p| p.runs()) {
        look.step(Step::Drain { instance: placed.spec.id, reason: "the app was deleted".to_owned() });
    }
    let building = look.state.builds.iter().any(|build| build.app == app.app.id);
    if app.instances.is_empty() && !building {
        look.plan.purgeable.push(app.app.id);
    }
}

/// The newest release that is on its way, and the one that serves. Others on their way have been overtaken; if there
/// are any, that is said first and the rest waits for the next look.
fn supersede<'a>(
    look: &mut Look<'_>,
    app: &'a AppState,
) -> Option<(Option<&'a Release>, Option<&'a Release>)> {
    let on_its_way = |r: &&Release| matches!(r.status, ReleaseStatus::Releasing | ReleaseStatus::Rolling);
    let next = app.live.iter().filter(on_its_way).max_by_key(|r| r.version);
    let current = app.live.iter().filter(|r| r.status == ReleaseStatus::Current).max_by_key(|r| r.version);
    let mut overtaken = false;
    for release in app.live.iter().filter(on_its_way) {
        let Some(newer) = next.filter(|next| next.version > release.version) else { continue };
        overtaken = true;
        let message = format!("v{} was made before v{} had come up", newer.version, release.version);
        look.step(Step::Release {
            app: app.app.id,
            version: release.version,
            status: ReleaseStatus::Superseded,
            switched_at: None,
            trouble: Some(Trouble { code: Code::A15, message, log_tail: Vec::new() }),
        });
    }
    if overtaken { None } else { Some((next, current)) }
}

/// One-off commands of releases that no longer wait for them.
fn drain_other_commands(look: &mut Look<'_>, app: &AppState, next: Option<&Release>) {
    let wanted = next.filter(|r| r.status == ReleaseStatus::Releasing).map(|r| r.version);
    let others =
        app.instances.iter().filter(|p| p.runs() && is_release_command(p) && Some(p.spec.release) != wanted);
    for placed in others {
        look.step(Step::Drain {
            instance: placed.spec.id,
            reason: "its release does not wait for it".to_owned(),
        });
    }
}

fn drain_services(look: &mut Look<'_>, app: &AppState, reason: &str) {
    for placed in app.instances.iter().filter(|p| p.runs() && p.service().is_some()) {
        look.step(Step::Drain { instance: placed.spec.id, reason: reason.to_owned() });
    }
}

/// The instances that speak for a release: those that run its content and are newer than the last release that was
/// up (`proven`). Those taken over from before do not: they may have been unwell for other reasons.
fn own<'a>(app: &'a AppState, release: &'a Release, proven: u64) -> impl Iterator<Item = &'a Placed> {
    let wanted = move |p: &Placed| {
        let known = release.content.formation.contains_key(&p.spec.process);
        known && fingerprint(&release.content, &p.spec.process) == p.fingerprint
    };
    app.instances
        .iter()
        .filter(move |p| p.runs() && p.service().is_some() && p.spec.release > proven && wanted(p))
}

/// Why a release does not come up, if that is certain.
fn failure(look: &Look<'_>, app: &AppState, release: &Release, proven: u64) -> Option<Trouble> {
    own(app, release, proven).find_map(|p| match p.verdict(look.is_serving(p), look.now) {
        Verdict::Failed(trouble) => Some(trouble),
        _ => None,
    })
}

/// Marks a release as failed; the one before it serves on.
pub(crate) fn fail(look: &mut Look<'_>, release: &Release, trouble: Trouble) {
    let message = format!("Release v{} failed: {}", release.version, trouble.message);
    look.say(release.app, "release", Some(&trouble), message);
    look.step(Step::Release {
        app: release.app,
        version: release.version,
        status: ReleaseStatus::Failed,
        switched_at: release.switched_at,
        trouble: Some(trouble),
    });
}

/// Says what a release waits for, if that changed.
pub(crate) fn wait(look: &mut Look<'_>, release: &Release, waits: Option<Trouble>) {
    if release.trouble == waits {
        return;
    }
    // The amounts in the sentence change with every small move on the host; the log gets one line per kind of wait.
    let kind = |trouble: &Option<Trouble>| trouble.as_ref().map(|t| t.code);
    if let Some(trouble) = waits.as_ref().filter(|_| kind(&release.trouble) != kind(&waits)) {
        look.say(release.app, "release", Some(trouble), format!("v{} {}", release.version, trouble.message));
    }
    look.step(Step::Release {
        app: release.app,
        version: release.version,
        status: release.status,
        switched_at: release.switched_at,
        trouble: waits,
    });
}

/// Whether the current release crashed in its watch window and is taken back.
fn watch(look: &mut Look<'_>, app: &AppState, release: &Release) -> bool {
    let Some(age) = release.switched_at.map(|at| look.now.duration_since(at)).filter(|age| *age < WATCH)
    else {
        return false;
    };
    look.plan.unsettled = true;
    // An automatic rollback is the end of the road: going back from it would only go round in circles.
    let Some(fallback) = app.fallback.as_ref().filter(|_| release.by != AUTOMATIC) else { return false };
    let broken = own(app, release, fallback.version).find_map(|p| {
        let report = p.report.as_ref()?;
        let unhealthy =
            report.state == InstanceState::Unhealthy && look.now.duration_since(report.since) >= UNHEALTHY;
        (report.restarts >= RESTARTS_MAX || unhealthy).then(|| p.trouble_of(report))
    });
    let Some(trouble) = broken else { return false };
    let seconds = age.as_secs();
    let message =
        format!("{} ({seconds} s after the switch; v{} is back)", trouble.message, fallback.version);
    fail(look, release, Trouble { message, ..trouble });
    look.step(Step::Make {
        app: app.app.id,
        why: Box::new(Why::Rollback {
            to: fallback.version,
            content: Box::new(fallback.content.clone()),
            automatic: true,
        }),
        by: AUTOMATIC.to_owned(),
        build: None,
    });
    true
}

/// Exchanges instances for those of `release`, and switches to it when all of it is there.
fn go_to(look: &mut Look<'_>, app: &AppState, release: &Release, current: Option<&Release>) {
    let mut processes: Vec<_> = release.content.formation.keys().cloned().collect();
    processes.extend(
        app.instances.iter().filter(|p| p.runs() && p.service().is_some()).map(|p| p.spec.process.clone()),
    );
    processes.sort();
    processes.dedup();
    let (mut done, mut waits, mut kept) = (true, None, Vec::new());
    for process in &processes {
        let known = release.content.manifest.processes.contains_key(process);
        let scale = release.content.formation.get(process).copied().filter(|_| known);
        let scale = scale.unwrap_or(Scale { count: 0, quota: berth_wire::quota::Quota::default() });
        let proven = current.map_or(0, |current| current.version);
        let progress = exchange(look, app, Target { release, process, scale, proven });
        done &= progress.done;
        waits = waits.or(progress.waits);
        kept.extend(progress.kept);
    }
    if !done {
        look.plan.unsettled = true;
    }
    if release.status != ReleaseStatus::Rolling || !done {
        let waits = waits.or_else(|| edge_missing(look, &kept));
        return wait(look, release, waits);
    }
    switch(look, release, current, &kept);
}

/// Healthy instances that nobody can reach, since the edge beside them is away.
fn edge_missing(look: &Look<'_>, kept: &[Placed]) -> Option<Trouble> {
    let healthy = |p: &&Placed| {
        let state = p.report.as_ref().map(|report| report.state);
        p.spec.process.is_web() && state == Some(InstanceState::Healthy)
    };
    let host = kept
        .iter()
        .filter(healthy)
        .find_map(|p| look.state.hosts.iter().find(|host| host.id == p.host && !host.edge.connected))?;
    let message =
        format!("waits: the edge on {} is not connected, so nothing can be routed there", host.name);
    Some(Trouble { code: Code::H99, message, log_tail: Vec::new() })
}

fn switch(look: &mut Look<'_>, release: &Release, current: Option<&Release>, kept: &[Placed]) {
    for placed in kept.iter().filter(|p| p.release != release.version) {
        look.step(Step::Adopt { instance: placed.spec.id, release: release.version });
    }
    if let Some(current) = current {
        look.step(Step::Release {
            app: current.app,
            version: current.version,
            status: ReleaseStatus::Superseded,
            switched_at: current.switched_at,
            trouble: None,
        });
    }
    look.step(Step::Release {
        app: release.app,
        version: release.version,
        status: ReleaseStatus::Current,
        switched_at: Some(look.now),
        trouble: None,
    });
    let message = format!("Release v{} is current: {}", release.version, release.description);
    look.say(release.app, "release", None, message);
}

//! The `release:` command: runs once, from the new image, before anything is switched. Its failure fails the release.

use berth_wire::api::ReleaseStatus;
use berth_wire::code::Code;
use berth_wire::name::ProcessType;
use berth_wire::quota::Quota;
use berth_wire::report::{Exit, InstanceReport, InstanceState, Trouble};
use berth_wire::spec::{Desired, InstanceSpec, Work};

use super::rollout::fail;
use super::{AppState, Look, Step};
use crate::domain::environment::{Which, fingerprint, process_spec};
use crate::domain::placed::{Placed, RESTARTS_MAX, describe_exit};
use crate::domain::release::Release;

/// Whether it runs a `release:` command; other one-offs are people's own.
pub(crate) fn is_release_command(placed: &Placed) -> bool {
    matches!(placed.spec.work, Work::OneOff(_)) && placed.spec.process == ProcessType::release()
}

/// Takes a release that is in Releasing one step further.
pub(crate) fn run_command(look: &mut Look<'_>, app: &AppState, release: &Release) {
    let running =
        app.instances.iter().find(|p| is_release_command(p) && p.spec.release == release.version && p.runs());
    let Some(placed) = running else { return start(look, app, release) };
    let Some(report) = &placed.report else { return };
    match outcome(placed, report) {
        None => {}
        Some(Ok(())) => {
            finish(look, placed);
            look.say(
                app.app.id,
                "release.1",
                None,
                format!("Release command of v{} succeeded", release.version),
            );
            look.step(Step::Release {
                app: app.app.id,
                version: release.version,
                status: ReleaseStatus::Rolling,
                switched_at: None,
                trouble: None,
            });
        }
        Some(Err(trouble)) => {
            finish(look, placed);
            fail(look, release, trouble);
        }
    }
}

fn finish(look: &mut Look<'_>, placed: &Placed) {
    look.step(Step::Drain { instance: placed.spec.id, reason: "the release command has ended".to_owned() });
}

fn outcome(placed: &Placed, report: &InstanceReport) -> Option<Result<(), Trouble>> {
    let given_up = report.state == InstanceState::BackingOff && report.restarts >= RESTARTS_MAX;
    if report.state != InstanceState::Exited && !given_up {
        return None;
    }
    if report.state == InstanceState::Exited && report.last_exit == Some(Exit::Code(0)) {
        return Some(Ok(()));
    }
    let command = match &placed.spec.work {
        Work::OneOff(process) => crate::domain::command_line::line(&process.argv),
        _ => String::new(),
    };
    let why = match (&report.trouble, report.last_exit) {
        (_, Some(exit)) => describe_exit(exit),
        (Some(trouble), None) => format!("could not run: {} {}", trouble.code, trouble.message),
        (None, None) => "could not run".to_owned(),
    };
    let message = format!("the release command `{command}` {why}; nothing was switched");
    let log_tail = report.trouble.as_ref().map(|t| t.log_tail.clone()).unwrap_or_default();
    Some(Err(Trouble { code: Code::B21, message, log_tail }))
}

/// It gets the quota of `web`, which people have sized for the same code.
fn start(look: &mut Look<'_>, app: &AppState, release: &Release) {
    let process = ProcessType::release();
    let content = &release.content;
    let quota = content.formation.get(&ProcessType::web()).map_or_else(Quota::default, |scale| scale.quota);
    let which = Which { app: &app.app.name, version: release.version, process: &process, index: 1 };
    let Some(run) = process_spec(content, which, look.state.settings.release_command_seconds_max) else {
        return;
    };
    let (host, reason) = match look.room.place(app.app.id, &process, &quota) {
        Ok(placed) => placed,
        Err(trouble) => return super::rollout::wait(look, release, Some(trouble)),
    };
    super::rollout::wait(look, release, None);
    let spec = InstanceSpec {
        id: (look.new_id)(),
        team: app.app.team,
        app: app.app.id,
        app_name: app.app.name.clone(),
        process: process.clone(),
        index: 1,
        release: release.version,
        desired: Desired::Run,
        work: Work::OneOff(run),
        quota,
    };
    look.step(Step::Place(Box::new(Placed {
        spec,
        host,
        fingerprint: fingerprint(content, &process),
        release: release.version,
        build: None,
        reason,
        created_at: look.now,
        report: None,
    })));
}

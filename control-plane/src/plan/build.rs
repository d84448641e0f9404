//! Builds: which host is at it, and what came of it. A build is an instance like any other, with its own quota, so it
//! cannot crowd out apps.

use berth_wire::api::BuildStatus;
use berth_wire::code::Code;
use berth_wire::name::ProcessType;
use berth_wire::report::{InstanceReport, InstanceState, Trouble};
use berth_wire::spec::{BuildSpec, Desired, InstanceSpec, Work};
use jiff::SignedDuration;

use super::{AppState, Look, Step};
use crate::domain::build::BuildRow;
use crate::domain::placed::Placed;
use crate::domain::release::Why;

/// How often an interrupted build is begun: once, and once more.
const ATTEMPTS_MAX: u32 = 2;

/// How long a host may be silent until its builds count as interrupted.
const SILENT: SignedDuration = SignedDuration::from_secs(120);

/// Takes the next steps for one build that has not ended.
pub(crate) fn plan_build(look: &mut Look<'_>, build: &BuildRow) {
    let state = look.state;
    let Some(app) = state.apps.iter().find(|app| app.app.id == build.app) else { return };
    let placed = app.instances.iter().find(|p| p.build == Some(build.id) && p.runs());
    if app.app.deleted_at.is_some() {
        let trouble = interrupted("the app was deleted while it was built");
        return end(look, build, placed, Err(trouble));
    }
    let Some(placed) = placed else { return start(look, app, build) };
    let silent = state
        .hosts
        .iter()
        .find(|host| host.id == placed.host)
        .is_none_or(|host| host.seen_at.is_none_or(|at| look.now.duration_since(at) >= SILENT));
    match &placed.report {
        Some(report) if report.state == InstanceState::Exited => finish(look, build, placed, report),
        _ if silent => {
            retry_or_fail(look, build, placed, interrupted("its host has been silent for two minutes"))
        }
        Some(_) if build.status == BuildStatus::Queued => {
            look.step(Step::Build(Box::new(BuildRow { status: BuildStatus::Running, ..build.clone() })));
        }
        _ => {}
    }
}

fn interrupted(why: &str) -> Trouble {
    Trouble { code: Code::B18, message: format!("the build was interrupted: {why}"), log_tail: Vec::new() }
}

fn finish(look: &mut Look<'_>, build: &BuildRow, placed: &Placed, report: &InstanceReport) {
    if let Some(built) = &report.built {
        return end(look, build, Some(placed), Ok((built.image.clone(), built.app.clone())));
    }
    let trouble = report.trouble.clone().unwrap_or_else(|| interrupted("its host does not say why"));
    if trouble.code == Code::B18 {
        return retry_or_fail(look, build, placed, trouble);
    }
    end(look, build, Some(placed), Err(trouble));
}

fn retry_or_fail(look: &mut Look<'_>, build: &BuildRow, placed: &Placed, trouble: Trouble) {
    if build.attempts >= ATTEMPTS_MAX {
        return end(look, build, Some(placed), Err(trouble));
    }
    look.step(Step::Drain {
        instance: placed.spec.id,
        reason: "interrupted; the build begins again".to_owned(),
    });
    look.say(build.app, "build", Some(&trouble), format!("{}; it begins again", trouble.message));
    look.step(Step::Build(Box::new(BuildRow { status: BuildStatus::Queued, ..build.clone() })));
}

type Outcome = Result<(berth_wire::image::ImageRef, berth_wire::image::AppManifest), Trouble>;

fn end(look: &mut Look<'_>, build: &BuildRow, placed: Option<&Placed>, outcome: Outcome) {
    if let Some(placed) = placed {
        look.step(Step::Drain { instance: placed.spec.id, reason: "the build has ended".to_owned() });
    }
    let mut ended = BuildRow { ended_at: Some(look.now), trouble: None, ..build.clone() };
    match outcome {
        Err(trouble) => {
            look.say(build.app, "build", Some(&trouble), format!("Build failed: {}", trouble.message));
            ended.status = BuildStatus::Failed;
            ended.trouble = Some(trouble);
            look.step(Step::Build(Box::new(ended)));
        }
        Ok((image, manifest)) => {
            look.say(build.app, "build", None, "Build succeeded".to_owned());
            ended.status = BuildStatus::Succeeded;
            ended.image = Some(image.clone());
            ended.manifest = Some(manifest.clone());
            look.step(Step::Build(Box::new(ended.clone())));
            if build.releases {
                look.step(Step::Make {
                    app: build.app,
                    why: Box::new(Why::Deploy {
                        image,
                        manifest,
                        commit: build.commit.clone(),
                        build: Some(build.id),
                    }),
                    by: build.by.clone(),
                    build: Some(Box::new(ended)),
                });
            }
        }
    }
}

fn start(look: &mut Look<'_>, app: &AppState, build: &BuildRow) {
    let Ok(process) = "build".parse::<ProcessType>() else { return };
    // One build of an app at a time: the second would only fight with the first for its cache.
    let builds = |p: &Placed| p.spec.app == build.app && matches!(p.spec.work, Work::Build(_));
    let just_placed = |step: &Step| matches!(step, Step::Place(placed) if builds(placed));
    if app.instances.iter().any(builds) || look.plan.steps.iter().any(just_placed) {
        return;
    }
    let quota = look.state.settings.build_quota;
    let (host, reason) = match look.room.place(app.app.id, &process, &quota) {
        Ok(placed) => placed,
        Err(trouble) if build.trouble.as_ref() == Some(&trouble) => return,
        Err(trouble) => {
            let waiting = BuildRow { trouble: Some(trouble), ..build.clone() };
            return look.step(Step::Build(Box::new(waiting)));
        }
    };
    let work = BuildSpec {
        build: build.id,
        source: build.source.clone(),
        commit: build.commit.clone(),
        stack: build.stack.clone(),
        repository: format!("apps/{}", app.app.id),
        env: app.config.iter().map(|(key, value)| (key.as_str().to_owned(), value.clone())).collect(),
        run_seconds_max: look.state.settings.build_seconds_max,
    };
    let spec = InstanceSpec {
        id: (look.new_id)(),
        team: app.app.team,
        app: app.app.id,
        app_name: app.app.name.clone(),
        process,
        index: 1,
        release: 0,
        desired: Desired::Run,
        work: Work::Build(work),
        quota,
    };
    look.step(Step::Build(Box::new(BuildRow {
        attempts: build.attempts + 1,
        trouble: None,
        ..build.clone()
    })));
    look.step(Step::Place(Box::new(Placed {
        spec,
        host,
        fingerprint: format!("build:{}", build.id),
        release: 0,
        build: Some(build.id),
        reason,
        created_at: look.now,
        report: None,
    })));
}

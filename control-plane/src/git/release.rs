//! The second half of a push, inside post-receive: the ref has moved, so the release is made, and the pusher waits until
//! it serves or has failed.

use std::time::Duration;

use berth_wire::api::ReleaseStatus;
use berth_wire::code::Code;
use berth_wire::id::BuildId;
use berth_wire::name::ProcessType;
use berth_wire::report::Trouble;
use tokio::time::{Instant, timeout};

use super::pushes::{Push, Verdict};
use super::rules::DEPLOY_BRANCHES;
use super::talk::{Talk, TalkError};
use crate::app::App;
use crate::domain::formation::runnable;
use crate::domain::release::Release;
use crate::store::{StoreError, deploys, releases};

/// How long a pusher waits for a release: a `release:` command (10 min), boot (1 min, twice), and air.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Looked at again after so long even if nobody woke us.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Answers post-receive.
pub async fn post_receive(app: &App, push: &Push, talk: &mut Talk) -> Result<(), TalkError> {
    let Some(verdict) = push.verdict() else {
        return talk
            .refuse(Code::A99, "Berth does not know what was decided about this push; push again")
            .await;
    };
    match verdict {
        Verdict::AlreadyDeployed { branch } => {
            only_branch(app, push, &branch).await;
            talk.exit(0).await
        }
        Verdict::Release { build, branch } => {
            let version = make(app, build).await?;
            only_branch(app, push, &branch).await;
            let Some(version) = version else {
                return talk.refuse(Code::A99, "the build is gone, so no release was made; push again").await;
            };
            // From here on the release is made, whoever still listens.
            wait(app, push, version, talk).await
        }
    }
}

async fn make(app: &App, build: BuildId) -> Result<Option<u64>, StoreError> {
    let mut tx = app.store.begin().await?;
    let version = deploys::release_create(&app.store, &mut tx, build, app.clock.now()).await?;
    tx.commit().await?;
    app.wakes.plan();
    app.wakes.changed();
    Ok(version)
}

/// The pushed branch is what a clone checks out, and the other one goes: a repository has one deploy branch, so that
/// pushing an old commit to the other is a push and not "everything up-to-date".
async fn only_branch(app: &App, push: &Push, branch: &str) {
    let tidy = async {
        app.git.repositories.set_head(push.app.id, branch).await?;
        for found in app.git.repositories.deploy_refs(push.app.id).await? {
            if found.branch != branch && DEPLOY_BRANCHES.contains(&found.branch.as_str()) {
                app.git.repositories.move_ref(push.app.id, &found.branch, &found.commit, None).await?;
            }
        }
        std::io::Result::Ok(())
    };
    if let Err(error) = tidy.await {
        tracing::warn!(%error, app = %push.app.name, "could not tidy the deploy branches after a push");
    }
}

async fn wait(app: &App, push: &Push, version: u64, talk: &mut Talk) -> Result<(), TalkError> {
    let deadline = Instant::now() + WAIT_MAX;
    let mut changed = app.wakes.watch();
    talk.step(&format!("Release v{version}")).await?;
    let mut said = String::new();
    loop {
        let found = releases::find(&app.store, &mut *app.store.read().await?, push.app.id, version).await?;
        let Some(release) = found else {
            return talk.refuse(Code::A12, "the app was deleted meanwhile").await;
        };
        if release.status.is_settled() {
            return tell(app, push, &release, talk).await;
        }
        let state = state_of(&release);
        if state != said {
            talk.detail(&state).await?;
            said = state;
        }
        if Instant::now() > deadline {
            talk.detail(&format!("v{version} is still on its way; berth releases says how it ends")).await?;
            return talk.exit(0).await;
        }
        let _ = timeout(LOOK_AGAIN, changed.changed()).await;
    }
}

/// What a release that is on its way does.
fn state_of(release: &Release) -> String {
    if let Some(trouble) = &release.trouble {
        return format!("Waiting: {} [{}]", super::build::reason(trouble), trouble.code);
    }
    match release.status {
        ReleaseStatus::Releasing => "Running its release command".to_owned(),
        _ => {
            let running = release.content.running();
            let counts: Vec<String> =
                running.iter().map(|(process, count)| format!("{process} × {count}")).collect();
            if counts.is_empty() {
                return "Nothing to start: no process type has instances; berth scale gives it some"
                    .to_owned();
            }
            format!("Starting {} and waiting until healthy", counts.join(", "))
        }
    }
}

/// Only what has web instances is served at an address.
async fn tell_current(app: &App, push: &Push, release: &Release, talk: &mut Talk) -> Result<(), TalkError> {
    let version = release.version;
    let running = release.content.running();
    if running.iter().any(|(process, _)| **process == ProcessType::web()) {
        talk.step(&format!("v{version} serves")).await?;
        return talk.detail(&app.config.apps_url.url(&push.app.name)).await;
    }
    let counts: Vec<String> = running.iter().map(|(process, count)| format!("{process}={count}")).collect();
    if !counts.is_empty() {
        return talk.step(&format!("v{version} runs: {}", counts.join(", "))).await;
    }
    let example = runnable(&release.content.manifest).next().map_or("web", ProcessType::as_str);
    talk.step(&format!("v{version} is ready, but nothing runs")).await?;
    talk.detail(&format!("No process type has instances; to start one: berth scale {example}=1")).await
}

async fn tell(app: &App, push: &Push, release: &Release, talk: &mut Talk) -> Result<(), TalkError> {
    let version = release.version;
    match release.status {
        ReleaseStatus::Current => {
            for note in &release.content.manifest.notes {
                talk.detail(&format!("Note: {note}")).await?;
            }
            tell_current(app, push, release, talk).await?;
        }
        ReleaseStatus::Superseded => {
            talk.detail(&format!("v{version} was superseded by a newer release before it served")).await?;
        }
        _ => {
            let unknown =
                || Trouble { code: Code::A99, message: "nobody said why".to_owned(), log_tail: Vec::new() };
            let trouble = release.trouble.clone().unwrap_or_else(unknown);
            talk.trouble(&format!("v{version} did not come up"), &trouble).await?;
            let serving =
                releases::list_live_of(&app.store, &mut *app.store.read().await?, push.app.id).await?;
            let current = serving.iter().find(|release| release.status == ReleaseStatus::Current);
            let now = match current {
                Some(current) => format!("v{} serves on; fix it, commit and push again", current.version),
                None => "No release serves; fix it, commit and push again".to_owned(),
            };
            talk.say(format!(" !     {now}")).await?;
        }
    }
    talk.exit(0).await
}

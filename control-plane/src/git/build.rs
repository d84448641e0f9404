//! The first half of a push, inside pre-receive: check it, find or queue its build, show the build's output, and let
//! the ref move only if it succeeds.

use std::collections::VecDeque;
use std::time::Duration;

use berth_wire::api::{BuildStatus, ReleaseStatus};
use berth_wire::code::Code;
use berth_wire::report::{LOG_TAIL_LINES_MAX, Trouble};
use berth_wire::terminal::OutputLines;
use tokio::time::{Instant, timeout_at};

use super::protocol::{TreeLimits, Update};
use super::pushes::{Push, Verdict};
use super::rules::{self, Accepted};
use super::talk::{Talk, TalkError};
use crate::app::App;
use crate::intake::{Intake, IntakeError, SOURCE_BYTES_MAX, SOURCE_FILES_MAX, Wanted, queue_build};
use crate::store::builds::{self, BuildRow};
use crate::store::releases;

/// What a source tree may be.
const LIMITS: TreeLimits = TreeLimits { files_max: SOURCE_FILES_MAX, bytes_max: SOURCE_BYTES_MAX };
/// Looked at again after so long even if nobody woke us.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Answers pre-receive.
pub async fn pre_receive(
    app: &App,
    push: &Push,
    updates: &[Update],
    talk: &mut Talk,
) -> Result<(), TalkError> {
    let accepted = match rules::judge(updates) {
        Ok(accepted) => accepted,
        Err(refused) => return talk.refuse(refused.code, &refused.sentence).await,
    };
    if let Err(busy) = app.git.pushes.own(push) {
        let sentence = format!(
            "another push to {} is under way (by {}, since {} s); when it has ended, push again",
            push.app.name, busy.by, busy.seconds
        );
        return talk.refuse(Code::G11, &sentence).await;
    }
    let short = accepted.new.get(..7).unwrap_or(&accepted.new).to_owned();
    talk.step(&format!("Berth received {short} for {}", push.app.name)).await?;
    if let Some(version) = deployed_as(app, push, &accepted.new).await? {
        talk.detail(&format!("{short} is what v{version} runs already: nothing to build")).await?;
        talk.detail("To start it anew: berth restart").await?;
        push.pass(Verdict::AlreadyDeployed { branch: accepted.branch });
        return talk.exit(0).await;
    }
    let build = match build_for(app, push, &accepted, talk).await {
        Ok(Some(build)) => build,
        Ok(None) => return Ok(()),
        Err(TalkError::Intake(IntakeError::Refused(code, sentence))) => {
            return talk.refuse(code, &sentence).await;
        }
        Err(TalkError::Intake(IntakeError::Blob(error))) if error.is_disk_full() => {
            return talk.refuse(Code::D13, "the control plane's disk is full; nothing was changed").await;
        }
        Err(error) => return Err(error),
    };
    let Some(Followed { build: ended, shown }) = follow(app, &build, talk).await? else {
        return talk.exit(1).await;
    };
    if ended.status == BuildStatus::Succeeded {
        push.pass(Verdict::Release { build: ended.id, branch: accepted.branch });
        return talk.exit(0).await;
    }
    let unknown = || Trouble { code: Code::B18, message: "it was lost".to_owned(), log_tail: Vec::new() };
    // Its output was just shown: the tail would repeat it, and mostly the reason as well.
    let trouble = Trouble { log_tail: Vec::new(), ..ended.trouble.clone().unwrap_or_else(unknown) };
    let reason = trouble.message.to_lowercase();
    if shown.iter().any(|line| line.to_lowercase().contains(&reason)) {
        talk.failed("The build failed, for the reason above", trouble.code).await?;
    } else {
        talk.trouble("The build failed", &trouble).await?;
    }
    match accepted.old {
        Some(old) => {
            let old = old.get(..7).unwrap_or(&old).to_owned();
            talk.say(format!(
                " !     Nothing was changed: {} stays at {old}, and what ran runs on",
                accepted.branch
            ))
            .await?;
        }
        None => talk.say(" !     Nothing was changed").await?,
    }
    talk.exit(1).await
}

/// The release that runs this commit already and was the last thing asked for.
async fn deployed_as(app: &App, push: &Push, commit: &str) -> Result<Option<u64>, TalkError> {
    let mut conn = app.store.read().await?;
    let head = releases::head_find(&app.store, &mut conn, push.app.id).await?;
    let head = head.filter(|release| release.status != ReleaseStatus::Failed);
    Ok(head
        .filter(|release| release.content.commit.as_deref() == Some(commit))
        .map(|release| release.version))
}

/// The build of this commit: one that an earlier push began, or a new one. None if the push was refused.
async fn build_for(
    app: &App,
    push: &Push,
    accepted: &Accepted,
    talk: &mut Talk,
) -> Result<Option<BuildRow>, TalkError> {
    let earlier = builds::find_by_commit(&mut *app.store.read().await?, push.app.id, &accepted.new).await?;
    if let Some(earlier) = earlier.filter(|build| build.release.is_none() && !build.releases) {
        match earlier.status {
            BuildStatus::Queued | BuildStatus::Running => {
                talk.detail("An earlier push began to build it: going on from there").await?;
                return Ok(Some(earlier));
            }
            BuildStatus::Succeeded => {
                talk.detail("An earlier push built it: going on from there").await?;
                return Ok(Some(earlier));
            }
            BuildStatus::Failed => {}
        }
    }
    let examined = talk.examine(&accepted.new, LIMITS).await?;
    if examined.is_too_large(LIMITS) {
        let mib = SOURCE_BYTES_MAX >> 20;
        let sentence = format!(
            "the source has more than {SOURCE_FILES_MAX} files or {mib} MiB; keep data and built files out of the repository"
        );
        talk.refuse(Code::B22, &sentence).await?;
        return Ok(None);
    }
    if examined.failed {
        talk.refuse(Code::A99, "git could not read the pushed tree; run git fsck in your repository").await?;
        return Ok(None);
    }
    if examined.files == 0 {
        talk.refuse(Code::B11, "the commit has no files: nothing to build; commit something first").await?;
        return Ok(None);
    }
    let kib = examined.bytes.div_ceil(1024);
    let files = if examined.files == 1 { "file" } else { "files" };
    talk.detail(&format!("{} {files}, {kib} KiB", examined.files)).await?;
    if examined.submodules > 0 {
        talk.say(" !     Submodules are not fetched: their folders will be empty").await?;
    }
    let mut intake = Intake::begin(app).await?;
    if !talk.receive(&mut intake).await? {
        talk.refuse(Code::A99, "git could not read the pushed tree; run git fsck in your repository").await?;
        return Ok(None);
    }
    let source = intake.finish().await?;
    let wanted = Wanted {
        app: push.app.id,
        source,
        commit: Some(accepted.new.clone()),
        by: &push.by,
        releases: false,
    };
    Ok(Some(queue_build(app, wanted).await?))
}

/// A build that was followed to its end.
struct Followed {
    build: BuildRow,
    /// The last lines of its output.
    shown: VecDeque<String>,
}

impl Followed {
    async fn show(&mut self, line: String, talk: &mut Talk) -> Result<(), TalkError> {
        if self.shown.len() == LOG_TAIL_LINES_MAX {
            self.shown.pop_front();
        }
        self.shown.push_back(line.clone());
        talk.say(line).await
    }
}

/// Shows a build's output until it has ended; none if it took so long that the push goes without it, which was said.
async fn follow(app: &App, build: &BuildRow, talk: &mut Talk) -> Result<Option<Followed>, TalkError> {
    // Twice: an interrupted build begins again once.
    let seconds_max = 2 * u64::from(app.config.build_seconds_max);
    let deadline = Instant::now() + Duration::from_secs(seconds_max);
    let mut changed = app.wakes.watch();
    let (mut offset, mut lines, mut said) = (0, OutputLines::default(), String::new());
    let mut followed = Followed { build: build.clone(), shown: VecDeque::new() };
    loop {
        // The state first: what is ended has written all its output.
        let found = builds::find_by_id(&mut *app.store.read().await?, build.id).await?;
        followed.build = found.unwrap_or_else(|| BuildRow { status: BuildStatus::Failed, ..build.clone() });
        loop {
            let chunk = app.build_logs.read(build.id, offset).await?;
            if chunk.is_empty() {
                break;
            }
            offset += chunk.len() as u64;
            for line in lines.feed(&chunk) {
                followed.show(line, talk).await?;
            }
        }
        if matches!(followed.build.status, BuildStatus::Succeeded | BuildStatus::Failed) {
            if let Some(line) = lines.rest() {
                followed.show(line, talk).await?;
            }
            return Ok(Some(followed));
        }
        let state = waiting_for(&followed.build);
        if state != said {
            talk.detail(&state).await?;
            said = state;
        }
        if Instant::now() >= deadline {
            talk.say(format!(" !     Build {} has not ended after {seconds_max} s; it goes on", build.id))
                .await?;
            talk.say(" !     Push again to go on from there; berth builds shows how it does").await?;
            return Ok(None);
        }
        let _ = timeout_at(deadline.min(Instant::now() + LOOK_AGAIN), changed.changed()).await;
    }
}

/// The planner says "waits: …"; so do we.
pub(super) fn reason(trouble: &Trouble) -> &str {
    trouble.message.strip_prefix("waits: ").unwrap_or(&trouble.message)
}

fn waiting_for(row: &BuildRow) -> String {
    let attempt = if row.attempts > 1 { format!(", attempt {}", row.attempts) } else { String::new() };
    match (row.status, &row.trouble) {
        (BuildStatus::Queued, Some(trouble)) => format!("Waiting: {} [{}]", reason(trouble), trouble.code),
        (BuildStatus::Queued, None) => format!("Build {} is queued", row.id),
        _ => format!("Build {} is running{attempt}", row.id),
    }
}

//! The first half of a push, inside pre-receive: check it, find or queue its build, show the build's output, and let
//! the ref move only if it succeeds.

use std::time::Duration;

use berth_wire::api::{BuildStatus, ReleaseStatus};
use berth_wire::code::Code;
use berth_wire::report::Trouble;
use tokio::time::timeout;

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
/// Longest piece of build output kept while its line has not ended.
const LINE_BYTES_MAX: usize = 16 << 10;

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
    let ended = follow(app, &build, talk).await?;
    if ended.status == BuildStatus::Succeeded {
        push.pass(Verdict::Release { build: ended.id, branch: accepted.branch });
        return talk.exit(0).await;
    }
    let unknown = || Trouble { code: Code::B18, message: "it was lost".to_owned(), log_tail: Vec::new() };
    // Its output was just shown: the tail would repeat it.
    let trouble = Trouble { log_tail: Vec::new(), ..ended.trouble.clone().unwrap_or_else(unknown) };
    talk.trouble("The build failed", &trouble).await?;
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

/// Shows a build's output until it has ended.
async fn follow(app: &App, build: &BuildRow, talk: &mut Talk) -> Result<BuildRow, TalkError> {
    let mut changed = app.wakes.watch();
    let (mut offset, mut lines, mut said) = (0, Lines::default(), String::new());
    loop {
        // The state first: what is ended has written all its output.
        let row = builds::find_by_id(&mut *app.store.read().await?, build.id)
            .await?
            .unwrap_or_else(|| BuildRow { status: BuildStatus::Failed, ..build.clone() });
        loop {
            let chunk = app.build_logs.read(build.id, offset).await?;
            if chunk.is_empty() {
                break;
            }
            offset += chunk.len() as u64;
            for line in lines.feed(&chunk) {
                talk.say(line).await?;
            }
        }
        if matches!(row.status, BuildStatus::Succeeded | BuildStatus::Failed) {
            if let Some(line) = lines.rest() {
                talk.say(line).await?;
            }
            return Ok(row);
        }
        let state = waiting_for(&row);
        if state != said {
            talk.detail(&state).await?;
            said = state;
        }
        let _ = timeout(LOOK_AGAIN, changed.changed()).await;
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

/// Output cut into lines. Of a line that was overwritten with carriage returns (a progress bar) only the last form is
/// shown, once.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(part);
            if self.partial.ends_with(b"\n") || self.partial.len() > LINE_BYTES_MAX {
                whole.extend(self.rest());
            }
        }
        whole
    }

    fn rest(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        Some(text.rsplit('\r').next().unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_must_be_cut_into_lines_wherever_it_was_split() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(b"-----> Py"), Vec::<String>::new());
        assert_eq!(lines.feed(b"thon\n\n10%\r50%\r100%\nrest"), ["-----> Python", "", "100%"]);
        assert_eq!(lines.rest().as_deref(), Some("rest"));
        assert_eq!(lines.rest(), None);
        assert_eq!(lines.feed(b"a\r\n"), ["a"]);
    }

    #[test]
    fn a_line_without_end_must_be_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(&vec![b'x'; LINE_BYTES_MAX + 1]).len(), 1);
    }
}

//! Refs made to agree with the store. A crash can leave a ref that moved without its release (then git would answer
//! "everything up-to-date" to the push that should finish it): the deploy branch goes back to the newest push that
//! became a release.

use std::io;

use berth_wire::id::AppId;

use super::repository::DeployRef;
use crate::app::App;
use crate::store::{StoreError, deploys};

/// Why a repository could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] io::Error),
}

/// Where a ref should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    Keep,
    Move(&'a str),
    Delete,
}

/// What to do with a deploy branch, if the store says that `pushed` is what was last released and `present` that its
/// commit is here (after a restore it may not be).
fn step<'a>(found: &DeployRef, pushed: Option<&'a str>, present: bool) -> Step<'a> {
    match pushed {
        Some(commit) if commit == found.commit => Step::Keep,
        Some(commit) if present => Step::Move(commit),
        _ => Step::Delete,
    }
}

/// Brings one repository in line, unless a push owns it: that one does it at its end.
///
/// # Errors
/// The store or git failed.
pub async fn reconcile(app: &App, id: AppId) -> Result<(), ReconcileError> {
    if app.git.pushes.is_owned(id) || !app.git.repositories.exists(id) {
        return Ok(());
    }
    sweep(app, id)?;
    let refs = app.git.repositories.deploy_refs(id).await?;
    if refs.is_empty() {
        return Ok(());
    }
    let pushed = deploys::pushed_commit_find(&mut *app.store.read().await?, id).await?;
    let present = match &pushed {
        Some(commit) => app.git.repositories.has_commit(id, commit).await?,
        None => false,
    };
    for found in &refs {
        let new = match step(found, pushed.as_deref(), present) {
            Step::Keep => continue,
            Step::Move(commit) => Some(commit),
            Step::Delete => None,
        };
        tracing::warn!(app = %id, branch = found.branch, from = found.commit, to = new, "a ref without its release is taken back");
        app.git.repositories.move_ref(id, &found.branch, &found.commit, new).await?;
    }
    Ok(())
}

/// Removes what broken pushes left behind. Listed first, so that a push that begins meanwhile is not in the list.
fn sweep(app: &App, id: AppId) -> io::Result<()> {
    let left = app.git.repositories.quarantines(id)?;
    if app.git.pushes.is_pushed_to(id) {
        return Ok(());
    }
    left.iter().try_for_each(std::fs::remove_dir_all)
}

/// Brings every repository in line. One that cannot be is logged; the others go on.
pub async fn reconcile_all(app: &App) {
    let apps = match app.git.repositories.list() {
        Ok(apps) => apps,
        Err(error) => {
            tracing::error!(%error, "could not list the repositories");
            return;
        }
    };
    for id in apps {
        if let Err(error) = reconcile(app, id).await {
            tracing::error!(%error, app = %id, "could not bring a repository in line with the store");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ref_must_follow_the_newest_push_that_became_a_release() {
        let found = DeployRef { branch: "main".into(), commit: "new".into() };
        assert_eq!(step(&found, Some("new"), true), Step::Keep);
        assert_eq!(step(&found, Some("new"), false), Step::Keep);
        assert_eq!(step(&found, Some("old"), true), Step::Move("old"));
        assert_eq!(step(&found, Some("old"), false), Step::Delete);
        assert_eq!(step(&found, None, false), Step::Delete);
    }
}

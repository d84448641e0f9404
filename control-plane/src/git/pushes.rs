//! The pushes that are under way, in memory: which one a hook belongs to, and that an app has only one at a time.
//! What they did is in the store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use berth_wire::id::{AppId, BuildId};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::store::apps::AppRow;

/// The pushes. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pushes(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    all: HashMap<Uuid, Arc<Push>>,
    /// Which of them has passed its own checks and now owns its app.
    owner: HashMap<AppId, Uuid>,
}

/// One push.
pub struct Push {
    /// Which.
    pub id: Uuid,
    /// What its hooks prove themselves with.
    pub secret: String,
    /// To which app.
    pub app: AppRow,
    /// Whose token.
    pub by: String,
    began: Instant,
    /// Set before git is told that it may move the ref: from then on it must not be stopped.
    passed: AtomicBool,
    verdict: Mutex<Option<Verdict>>,
}

/// What pre-receive decided, for post-receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This build becomes a release.
    Release {
        /// Which.
        build: BuildId,
        /// The branch that was pushed.
        branch: String,
    },
    /// The commit is what the app's newest release runs.
    AlreadyDeployed {
        /// The branch that was pushed.
        branch: String,
    },
}

/// Another push owns the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// Whose.
    pub by: String,
    /// For how long.
    pub seconds: u64,
}

/// Keeps a push in the table until it is dropped.
pub struct PushGuard {
    pushes: Pushes,
    push: Arc<Push>,
}

impl Pushes {
    /// Begins a push.
    pub fn begin(&self, app: AppRow, by: String, secret: String) -> PushGuard {
        let push = Arc::new(Push {
            id: Uuid::now_v7(),
            secret,
            app,
            by,
            began: Instant::now(),
            passed: AtomicBool::new(false),
            verdict: Mutex::default(),
        });
        self.lock().all.insert(push.id, Arc::clone(&push));
        PushGuard { pushes: self.clone(), push }
    }

    /// The push that a hook belongs to.
    pub fn find(&self, id: Uuid, secret: &str) -> Option<Arc<Push>> {
        let push = self.lock().all.get(&id).cloned()?;
        bool::from(push.secret.as_bytes().ct_eq(secret.as_bytes())).then_some(push)
    }

    /// Makes a push its app's only one.
    ///
    /// # Errors
    /// Another is.
    pub fn own(&self, push: &Push) -> Result<(), Busy> {
        let mut table = self.lock();
        let owner = *table.owner.entry(push.app.id).or_insert(push.id);
        if owner == push.id {
            return Ok(());
        }
        let other = table.all.get(&owner);
        Err(Busy {
            by: other.map(|other| other.by.clone()).unwrap_or_default(),
            seconds: other.map_or(0, |other| other.began.elapsed().as_secs()),
        })
    }

    /// Whether a push owns the app.
    pub fn is_owned(&self, app: AppId) -> bool {
        self.lock().owner.contains_key(&app)
    }

    /// Whether a push to the app is under way, owner or not.
    pub fn is_pushed_to(&self, app: AppId) -> bool {
        self.lock().all.values().any(|push| push.app.id == app)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Push {
    /// Notes what pre-receive decided and that git may now move the ref.
    pub fn pass(&self, verdict: Verdict) {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        self.passed.store(true, Ordering::SeqCst);
    }

    /// Whether git may move the ref: it is then too late to stop.
    pub fn has_passed(&self) -> bool {
        self.passed.load(Ordering::SeqCst)
    }

    /// What pre-receive decided.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PushGuard {
    /// The push.
    pub fn push(&self) -> &Push {
        &self.push
    }
}

impl Drop for PushGuard {
    fn drop(&mut self) {
        let mut table = self.pushes.lock();
        table.all.remove(&self.push.id);
        if table.owner.get(&self.push.app.id) == Some(&self.push.id) {
            table.owner.remove(&self.push.app.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_wire::id::TeamId;

    fn app(n: u128) -> AppRow {
        AppRow {
            id: AppId(Uuid::from_u128(n)),
            team: TeamId(Uuid::nil()),
            name: "shop".parse().unwrap(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            deleted_at: None,
            domains: vec![],
        }
    }

    #[test]
    fn an_app_must_have_one_push_at_a_time() {
        let pushes = Pushes::default();
        let first = pushes.begin(app(1), "ann".into(), "s1".into());
        let second = pushes.begin(app(1), "bob".into(), "s2".into());
        let other = pushes.begin(app(2), "bob".into(), "s3".into());
        pushes.own(first.push()).unwrap();
        pushes.own(first.push()).unwrap();
        assert_eq!(pushes.own(second.push()).unwrap_err().by, "ann");
        pushes.own(other.push()).unwrap();
        drop(first);
        pushes.own(second.push()).unwrap();
        drop((second, other));
        assert!(!pushes.is_owned(AppId(Uuid::from_u128(1))));
    }

    #[test]
    fn a_hook_must_prove_which_push_it_belongs_to() {
        let pushes = Pushes::default();
        let guard = pushes.begin(app(1), "ann".into(), "s1".into());
        assert!(pushes.find(guard.push().id, "s1").is_some());
        assert!(pushes.find(guard.push().id, "s2").is_none());
        assert!(pushes.find(Uuid::nil(), "s1").is_none());
    }
}

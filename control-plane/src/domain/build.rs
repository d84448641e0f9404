//! A build: where it stands, and what becomes of one that ended.

use berth_wire::api::{Build, BuildStatus};
use berth_wire::digest::Digest;
use berth_wire::id::{AppId, BuildId};
use berth_wire::image::{AppManifest, ImageRef};
use berth_wire::report::Trouble;
use jiff::Timestamp;

/// A build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRow {
    /// Which.
    pub id: BuildId,
    /// Whose.
    pub app: AppId,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The commit, for a push.
    pub commit: Option<String>,
    /// The source tree, an uncompressed tar.
    pub source: Digest,
    /// The stack it is built on.
    pub stack: ImageRef,
    /// Whose token asked.
    pub by: String,
    /// Whether its success makes a release by itself (an upload), or whoever asked does (a push, after its ref moved).
    pub releases: bool,
    /// Where it stands.
    pub status: BuildStatus,
    /// How often it was given to a host.
    pub attempts: u32,
    /// What it made.
    pub image: Option<ImageRef>,
    /// What is in it.
    pub manifest: Option<AppManifest>,
    /// Why it failed.
    pub trouble: Option<Trouble>,
    /// The release it became.
    pub release: Option<u64>,
}

impl BuildRow {
    /// A build that waits for a host.
    pub fn queued(
        id: BuildId,
        app: AppId,
        (source, stack): (Digest, ImageRef),
        commit: Option<String>,
        (by, releases): (&str, bool),
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            app,
            created_at: now,
            ended_at: None,
            commit,
            source,
            stack,
            by: by.to_owned(),
            releases,
            status: BuildStatus::Queued,
            attempts: 0,
            image: None,
            manifest: None,
            trouble: None,
            release: None,
        }
    }

    /// As the API shows it.
    pub fn to_wire(&self) -> Build {
        Build {
            id: self.id,
            created_at: self.created_at,
            ended_at: self.ended_at,
            commit: self.commit.clone(),
            status: self.status,
            trouble: self.trouble.clone(),
            release: self.release,
        }
    }
}

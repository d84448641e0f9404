//! What a receive hook and `berthd` say to each other over the private socket: JSON lines both ways, and one framed
//! stream for a source tree.
//!
//! ```text
//! hook                                     berthd
//!  Hello ────────────────────────────────>  (push known? secret right?)
//!  <──────────────────────────────────────  Say*                 printed at once: the pusher sees `remote: …`
//!  <──────────────────────────────────────  Archive              (pre-receive, unless the build exists already)
//!  Examined ─────────────────────────────>
//!  length, bytes … 0, status ────────────>                       (if it is within the limits)
//!  <──────────────────────────────────────  Say*, Exit
//! ```

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Environment of the hook: the socket's folder.
pub const ENV_DIR: &str = "BERTH_PUSH_DIR";
/// Environment of the hook: which push it belongs to.
pub const ENV_PUSH: &str = "BERTH_PUSH_ID";
/// Environment of the hook: proves it.
pub const ENV_SECRET: &str = "BERTH_PUSH_SECRET";
/// The socket's name in its folder.
pub const SOCKET: &str = "hook.sock";
/// Longest line either way: a hello with all its refs, or a line of build output, fits many times.
pub const LINE_BYTES_MAX: usize = 256 << 10;
/// Longest frame of a source tree.
pub const FRAME_BYTES_MAX: usize = 128 << 10;
/// Most refs one push may change (G13). More than one is refused anyway, but each by its own sentence.
pub const REFS_MAX: usize = 100;

/// Which hook speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Before any ref moves; decides whether they do.
    PreReceive,
    /// After the refs moved.
    PostReceive,
}

/// The hook's first line.
#[derive(Serialize, Deserialize)]
pub struct Hello {
    /// Which push.
    pub push: Uuid,
    /// Its secret.
    pub secret: String,
    /// Which hook.
    pub stage: Stage,
    /// What is to change; at most [`REFS_MAX`] + 1 of them.
    pub updates: Vec<Update>,
}

/// One ref's change, as git gives it to a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The object it named; all zeros if it is new.
    pub old: String,
    /// The object it is to name; all zeros if it goes.
    pub new: String,
    /// Its full name.
    pub reference: String,
}

/// What the hook is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Print this line.
    Say(String),
    /// Examine this commit's tree and send it.
    Archive {
        /// Which commit.
        commit: String,
        /// What a tree may be.
        limits: TreeLimits,
    },
    /// End with this status.
    Exit(u8),
}

/// How large a source tree may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeLimits {
    /// Most files.
    pub files_max: u64,
    /// Most bytes in them.
    pub bytes_max: u64,
}

/// What a tree is. Counting stops above the limits: a small pack can describe a tree of billions of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// Files and symbolic links.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Submodules, whose content is not in the repository.
    pub submodules: u64,
    /// Whether git could not list the tree.
    pub failed: bool,
}

impl Examined {
    /// Whether it may be sent.
    pub fn is_sendable(&self, limits: TreeLimits) -> bool {
        !self.failed && self.files > 0 && !self.is_too_large(limits)
    }

    /// Whether it is above the limits.
    pub fn is_too_large(&self, limits: TreeLimits) -> bool {
        self.files > limits.files_max || self.bytes > limits.bytes_max
    }

    /// Counts one entry of `git ls-tree -r -l -z`: `MODE TYPE OBJECT SIZE<tab>PATH`.
    pub fn count(&mut self, entry: &[u8]) {
        let meta = entry.split(|b| *b == b'\t').next().unwrap_or_default();
        let meta = String::from_utf8_lossy(meta);
        let mut fields = meta.split_ascii_whitespace();
        let (_, kind, _, size) = (fields.next(), fields.next(), fields.next(), fields.next());
        if kind == Some("commit") {
            self.submodules += 1;
        } else {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(size.and_then(|size| size.parse().ok()).unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_must_be_counted_from_gits_listing() {
        let mut examined = Examined::default();
        examined.count(b"100644 blob 8b137891791fe96927ad78e64b0aad7bded08bdc      12\ta b\tc");
        examined.count(b"120000 blob 8b137891791fe96927ad78e64b0aad7bded08bdc       3\tlink");
        examined.count(b"160000 commit 8b137891791fe96927ad78e64b0aad7bded08bdc       -\tsub");
        assert_eq!(examined, Examined { files: 2, bytes: 15, submodules: 1, failed: false });
        assert!(examined.is_sendable(TreeLimits { files_max: 2, bytes_max: 15 }));
        assert!(!examined.is_sendable(TreeLimits { files_max: 1, bytes_max: 15 }));
        assert!(!Examined::default().is_sendable(TreeLimits { files_max: 1, bytes_max: 1 }));
    }
}

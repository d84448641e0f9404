//! The ledger: the newest spec this host accepted, kept so that the host goes on without the control plane.
//!
//! A spec is accepted, encrypted, synced to disk and renamed into place *before* anybody acts on it; then it is
//! published on a watch channel. Nothing here looks into what a spec says.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use berth_wire::id::HostId;
use berth_wire::spec::{Generation, Spec};
use tokio::sync::watch;

/// The largest encoded spec that is accepted: 1,000 instances with 64 KiB of environment each.
pub const SPEC_BYTES_MAX: usize = 64 << 20;

const KEY_BYTES: usize = 32;

/// Bound into the authentication tag, so that no other file sealed with the key can be swapped in.
const CONTEXT: &[u8] = b"berth agent ledger, spec, format 1";

/// The newest accepted spec, on disk and in memory.
pub struct Ledger {
    host: HostId,
    directory: PathBuf,
    key: [u8; KEY_BYTES],
    // One writer at a time: the check against the newest generation and the rename belong together.
    writing: Mutex<()>,
    published: watch::Sender<Option<Arc<Spec>>>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger")
            .field("host", &self.host)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// What became of an offered spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is newer and now in force.
    New,
    /// It is the one in force already.
    Repeated,
}

/// Why a spec was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is for somebody else.
    #[error("the spec is for host {theirs}, but this is {ours}; does token_file hold another host's token?")]
    OtherHost {
        /// Whom it is for.
        theirs: HostId,
        /// Who we are.
        ours: HostId,
    },
    /// A newer one is in force.
    #[error("spec {offered:?} is older than {current:?}, which is in force; it is ignored")]
    Older {
        /// What was offered.
        offered: Generation,
        /// What is in force.
        current: Generation,
    },
    /// Two specs claim to be the same generation.
    #[error(
        "spec {generation:?} has other content than the spec of the same generation in force; it is ignored. \
         Was the control plane restored from a backup without starting a new epoch?"
    )]
    SameGenerationOtherContent {
        /// The generation both claim.
        generation: Generation,
    },
    /// The disk refused.
    #[error("could not {action} {path}: {source}")]
    Storage {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Sealing or opening failed.
    #[error("could not {action} {path}: the key {key} does not fit it or the file was changed")]
    Cipher {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The content is no spec.
    #[error("could not decode the spec in {path}: {source}")]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

/// Whether `offered` may replace `current`: the rule alone, without any disk.
///
/// # Errors
/// [`LedgerError::OtherHost`], [`LedgerError::Older`], [`LedgerError::SameGenerationOtherContent`].
pub fn judge(host: HostId, current: Option<&Spec>, offered: &Spec) -> Result<Accepted, LedgerError> {
    if offered.host != host {
        return Err(LedgerError::OtherHost { theirs: offered.host, ours: host });
    }
    let Some(current) = current else { return Ok(Accepted::New) };
    if offered.generation > current.generation {
        return Ok(Accepted::New);
    }
    if offered.generation < current.generation {
        return Err(LedgerError::Older { offered: offered.generation, current: current.generation });
    }
    if offered.content_digest() == current.content_digest() {
        return Ok(Accepted::Repeated);
    }
    Err(LedgerError::SameGenerationOtherContent { generation: offered.generation })
}

impl Ledger {
    /// Opens the ledger in `data_dir/ledger`, making directory and key if absent. A spec that cannot be read (damaged, or
    /// another key) is set aside as `spec.unreadable`: the control plane will send it again, and containers go on until it does.
    ///
    /// # Errors
    /// The directory or the key cannot be made or read.
    pub fn open(data_dir: &Path, host: HostId) -> Result<Self, LedgerError> {
        let directory = data_dir.join("ledger");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| LedgerError::Storage { action: "make", path: directory.clone(), source })?;
        let key = key_open(&directory.join("key"))?;
        let (published, _) = watch::channel(None);
        let ledger = Self { host, directory, key, writing: Mutex::new(()), published };
        match ledger.read() {
            Ok(Some(spec)) if spec.host == host => {
                ledger.published.send_replace(Some(Arc::new(spec)));
            }
            Ok(Some(spec)) => {
                tracing::warn!(theirs = %spec.host, ours = %host, "the ledger holds another host's spec; it is ignored");
            }
            Ok(None) => {}
            Err(error) => {
                let aside = ledger.directory.join("spec.unreadable");
                tracing::warn!(%error, set_aside = %aside.display(), "the ledger is unreadable; waiting for the control plane");
                // Losing the unreadable file too would only lose evidence.
                let _ = std::fs::rename(ledger.spec_path(), aside);
            }
        }
        Ok(ledger)
    }

    /// Accepts a spec if it is newer: when this returns [`Accepted::New`] it is on disk and published.
    /// Blocks for one fsync.
    ///
    /// # Errors
    /// Why it was not accepted; the one in force stays.
    pub fn accept(&self, offered: Spec) -> Result<Accepted, LedgerError> {
        let _writing = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let current = self.current();
        let verdict = judge(self.host, current.as_deref(), &offered)?;
        if verdict == Accepted::New {
            self.write(&offered)?;
            self.published.send_replace(Some(Arc::new(offered)));
        }
        Ok(verdict)
    }

    /// The spec in force.
    pub fn current(&self) -> Option<Arc<Spec>> {
        self.published.borrow().clone()
    }

    /// The spec in force, now and whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Spec>>> {
        self.published.subscribe()
    }

    fn spec_path(&self) -> PathBuf {
        self.directory.join("spec")
    }

    fn cipher(&self, action: &'static str) -> Result<RandomizedNonceKey, LedgerError> {
        RandomizedNonceKey::new(&AES_256_GCM, &self.key).map_err(|_| self.cipher_error(action))
    }

    fn cipher_error(&self, action: &'static str) -> LedgerError {
        LedgerError::Cipher { action, path: self.spec_path(), key: self.directory.join("key") }
    }

    fn read(&self) -> Result<Option<Spec>, LedgerError> {
        let path = self.spec_path();
        let mut sealed = match std::fs::read(&path) {
            Ok(sealed) => sealed,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LedgerError::Storage { action: "read", path, source }),
        };
        if sealed.len() < NONCE_LEN {
            return Err(self.cipher_error("open"));
        }
        let mut body = sealed.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&sealed).map_err(|_| self.cipher_error("open"))?;
        let plain = self
            .cipher("open")?
            .open_in_place(nonce, Aad::from(CONTEXT), &mut body)
            .map_err(|_| self.cipher_error("open"))?;
        serde_json::from_slice(plain).map(Some).map_err(|source| LedgerError::Decode { path, source })
    }

    fn write(&self, spec: &Spec) -> Result<(), LedgerError> {
        let path = self.spec_path();
        let mut body =
            serde_json::to_vec(spec).map_err(|source| LedgerError::Decode { path: path.clone(), source })?;
        let nonce = self
            .cipher("seal")?
            .seal_in_place_append_tag(Aad::from(CONTEXT), &mut body)
            .map_err(|_| self.cipher_error("seal"))?;
        let storage = |source| LedgerError::Storage { action: "write", path: path.clone(), source };
        write_durably(&path, &[nonce.as_ref(), &body]).map_err(storage)
    }
}

/// Replaces `path` as a whole: a reader, and the next boot, sees the old content or the new, never a part. Mode 0600.
///
/// # Errors
/// Of any of: create, write, fsync, rename, fsync of the directory.
pub fn write_durably(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let staged = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    std::fs::rename(&staged, path)?;
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn key_open(path: &Path) -> Result<[u8; KEY_BYTES], LedgerError> {
    let failed = |action, source| LedgerError::Storage { action, path: path.to_owned(), source };
    match std::fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|_| {
            let source = std::io::Error::other("it is not 32 bytes; move it away to start with a new key");
            failed("use", source)
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut key = [0; KEY_BYTES];
            SystemRandom::new()
                .fill(&mut key)
                .map_err(|_| failed("make", std::io::Error::other("the kernel gave no randomness")))?;
            write_durably(path, &[&key]).map_err(|e| failed("write", e))?;
            Ok(key)
        }
        Err(source) => Err(failed("read", source)),
    }
}

#[cfg(test)]
mod tests;

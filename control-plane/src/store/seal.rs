//! Secrets at rest: AES-256-GCM under a key file beside the store, and secrets that are only ever compared: their
//! SHA-256. A token has 256 random bits, so a plain hash cannot be searched; passwords would need argon2.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use sha2::{Digest as _, Sha256};

/// The key file's name in the data directory.
pub const KEY_FILE: &str = "secret.key";

/// Bytes of a nonce, which is kept before the ciphertext (NIST SP 800-38D, 8.2: 96 bits).
const NONCE_BYTES: usize = 12;

/// Seals and opens.
#[derive(Clone)]
pub struct Sealer(Arc<RandomizedNonceKey>);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be used.
    #[error("cannot use the key file {path}: {source}; it must be readable and belong to this user")]
    KeyFile {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The key file does not hold a key.
    #[error("{path} does not hold 32 bytes; restore it from the backup that the store came from")]
    BadKey {
        /// Which.
        path: String,
    },
    /// A stored secret was not sealed with this key.
    #[error(
        "a stored secret cannot be opened with {KEY_FILE}; restore the key file that belongs to this store"
    )]
    Open,
    /// The random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
}

impl Sealer {
    /// Reads the key in a data directory, or makes one (0600).
    ///
    /// # Errors
    /// The file cannot be read, written or does not hold a key.
    pub fn open(data: &Path) -> Result<Self, SealError> {
        let path = data.join(KEY_FILE);
        let shown = || path.display().to_string();
        let key_file = |source| SealError::KeyFile { path: shown(), source };
        if !path.exists() {
            make_key(&path)?;
        }
        let key = std::fs::read(&path).map_err(key_file)?;
        let key =
            RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| SealError::BadKey { path: shown() })?;
        Ok(Self(Arc::new(key)))
    }

    /// Seals bytes: nonce, then ciphertext and tag. `context` (which column of which row) must be given again to open
    /// them, so that ciphertext moved to another row does not open.
    ///
    /// # Errors
    /// The random number generator failed.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = plain.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(context.as_bytes()), &mut sealed)
            .map_err(|_| SealError::Random)?;
        let mut whole = nonce.as_ref().to_vec();
        whole.append(&mut sealed);
        Ok(whole)
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// It was sealed with another key or for another context, or was changed.
    pub fn open_sealed(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_BYTES).ok_or(SealError::Open)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Open)?;
        let mut rest = rest.to_vec();
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(context.as_bytes()), &mut rest)
            .map_err(|_| SealError::Open)?;
        Ok(plain.to_vec())
    }
}

/// Writes a new key under another name first, so that a crash never leaves half a key, and links it into place, so
/// that of two processes that start at once one wins and both use its key.
fn make_key(path: &Path) -> Result<(), SealError> {
    let key_file = |source| SealError::KeyFile { path: path.display().to_string(), source };
    let mut key = [0; 32];
    rand::fill(&mut key).map_err(|_| SealError::Random)?;
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(key_file)?;
    file.write_all(&key).and_then(|()| file.sync_all()).map_err(key_file)?;
    match std::fs::hard_link(&new, path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(key_file(e)),
        _ => {}
    }
    std::fs::remove_file(&new).map_err(key_file)
}

/// A new secret: a prefix that secret scanners can find, and 256 random bits in URL-safe base64.
///
/// # Errors
/// The random number generator failed.
pub fn secret_new(prefix: &str) -> Result<String, SealError> {
    use base64::Engine as _;
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| SealError::Random)?;
    Ok(format!("{prefix}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
}

/// What is stored of a secret.
pub fn secret_hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_must_open_only_in_its_context_and_unchanged() {
        let data = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(data.path()).unwrap();
        let sealed = sealer.seal("apps/1", b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        let again = Sealer::open(data.path()).unwrap();
        assert_eq!(again.open_sealed("apps/1", &sealed).unwrap(), b"hunter2");
        assert!(again.open_sealed("apps/2", &sealed).is_err());
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(again.open_sealed("apps/1", &changed).is_err());
        assert!(again.open_sealed("apps/1", b"short").is_err());
    }

    #[test]
    fn the_key_file_must_be_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let data = tempfile::tempdir().unwrap();
        Sealer::open(data.path()).unwrap();
        let mode = std::fs::metadata(data.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn no_two_secrets_must_be_equal() {
        assert_ne!(secret_new("berth_").unwrap(), secret_new("berth_").unwrap());
    }
}

//! The number of the next route table: grows across restarts of the agent, because the edge ignores older ones.
//! The file holds an upper bound, raised in steps, so that not every table costs an fsync.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Numbers reserved by one write: a restart skips at most as many, of 2^64.
const RESERVE: u64 = 1_000;

/// The table counter could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum CounterError {
    /// The file system refused.
    #[error(
        "could not {what} the route table counter {path}: {source}; check that the disk has room and is writable"
    )]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file holds no number.
    #[error(
        "the route table counter {path} holds {found:?}, not a number; delete the file, the edge's own number is used then"
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Its content, cut to 40 characters.
        found: String,
    },
}

/// Hands out table numbers.
pub(super) struct Counter {
    path: PathBuf,
    last: u64,
    reserved: u64,
}

impl Counter {
    /// Continues above every number that an earlier counter in this directory handed out.
    pub(super) fn open(state_dir: &Path) -> Result<Self, CounterError> {
        let path = state_dir.join("routes.number");
        let last = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| CounterError::Malformed {
                path: path.clone(),
                found: text.chars().take(40).collect(),
            })?,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(CounterError::Io { what: "read", path, source }),
        };
        Ok(Self { path, last, reserved: last })
    }

    /// The next number.
    pub(super) fn next(&mut self) -> Result<u64, CounterError> {
        let next = self.last + 1;
        if next > self.reserved {
            let reserved = next + RESERVE;
            self.write(reserved).map_err(|source| CounterError::Io {
                what: "write",
                path: self.path.clone(),
                source,
            })?;
            self.reserved = reserved;
        }
        self.last = next;
        Ok(next)
    }

    /// Continues above `number`, which somebody else has seen.
    pub(super) fn raise(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    fn write(&self, reserved: u64) -> io::Result<()> {
        let temporary = self.path.with_extension("number.new");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{reserved}")?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_must_grow_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = 0;
        for _ in 0..3 {
            let mut counter = Counter::open(dir.path()).unwrap();
            for _ in 0..RESERVE + 7 {
                let next = counter.next().unwrap();
                assert!(next > last, "{next} after {last}");
                last = next;
            }
        }
    }

    #[test]
    fn a_number_seen_elsewhere_must_be_passed() {
        let dir = tempfile::tempdir().unwrap();
        let mut counter = Counter::open(dir.path()).unwrap();
        counter.raise(50_000);
        assert_eq!(counter.next().unwrap(), 50_001);
        assert!(Counter::open(dir.path()).unwrap().next().unwrap() > 50_001);
    }

    #[test]
    fn a_malformed_file_must_be_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("routes.number"), "seven").unwrap();
        let error = Counter::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("routes.number") && error.contains("seven"), "{error}");
    }
}

//! What builds print: one file per build, appended by the agent at byte offsets, followed by whoever pushed. What the
//! bytes mean is not known here.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use berth_wire::id::BuildId;
use bytes::Bytes;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

/// Most bytes kept of one build's output: beyond it the agent is told that they were taken, and a line says so.
pub const LOG_BYTES_MAX: u64 = 32 << 20;

/// Most bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The folder of build logs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BuildLogs {
    dir: Arc<Path>,
    /// One writer per build at a time: an agent that retries must not interleave with its own first try.
    writing: Arc<Mutex<HashMap<BuildId, Arc<tokio::sync::Mutex<()>>>>>,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Stored (or stored before); the log is now this long.
    Stored(u64),
    /// The bytes would leave a gap; the log is this long, go on from there.
    Gap(u64),
}

impl BuildLogs {
    /// Opens (or makes) the folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        crate::private::dir(dir)?;
        Ok(Self { dir: dir.into(), writing: Arc::default() })
    }

    fn path(&self, build: BuildId) -> PathBuf {
        self.dir.join(format!("{build}.log"))
    }

    /// Forgets a build's output; it may be gone already.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub async fn remove(&self, build: BuildId) -> io::Result<()> {
        match tokio::fs::remove_file(self.path(build)).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Appends bytes that begin at `offset` of the build's output. What is stored already is skipped.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn append(&self, build: BuildId, offset: u64, bytes: &[u8]) -> io::Result<Appended> {
        let turn = {
            let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            writing.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(writing.entry(build).or_default())
        };
        let _turn = turn.lock().await;
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(build)).await?;
        let length = file.metadata().await?.len();
        if offset > length {
            // Beyond the cap the agent's offsets run ahead of the file: taken, and dropped.
            return Ok(if length >= LOG_BYTES_MAX {
                Appended::Stored(offset + bytes.len() as u64)
            } else {
                Appended::Gap(length)
            });
        }
        let fresh =
            usize::try_from(length - offset).ok().and_then(|known| bytes.get(known..)).unwrap_or_default();
        if fresh.is_empty() {
            return Ok(Appended::Stored(length));
        }
        if length + fresh.len() as u64 > LOG_BYTES_MAX {
            if length < LOG_BYTES_MAX {
                let note = format!(
                    "\n !     the output is longer than {LOG_BYTES_MAX} bytes; the rest is not kept\n"
                );
                let mut filled = note.into_bytes();
                // Reach the cap, so that the note is written once.
                filled.resize(usize::try_from(LOG_BYTES_MAX - length).unwrap_or(0).max(filled.len()), b'\n');
                file.write_all(&filled).await?;
                file.flush().await?;
            }
            return Ok(Appended::Stored(offset + bytes.len() as u64));
        }
        file.write_all(fresh).await?;
        file.flush().await?;
        Ok(Appended::Stored(length + fresh.len() as u64))
    }

    /// The next bytes from `offset`, at most 64 KiB; empty if there are none (yet).
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn read(&self, build: BuildId, offset: u64) -> io::Result<Bytes> {
        let mut file = match File::open(self.path(build)).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Bytes::new()),
            Err(error) => return Err(error),
        };
        file.seek(io::SeekFrom::Start(offset)).await?;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        file.take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await?;
        Ok(chunk.into())
    }

    /// Removes logs that were last written before a time; how many. Blocks.
    ///
    /// # Errors
    /// The folder cannot be listed or a file not be removed.
    pub fn remove_older(&self, than: SystemTime) -> io::Result<usize> {
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.metadata()?.modified()? < than {
                std::fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test]
    async fn repeated_bytes_must_be_stored_once_and_a_gap_refused() {
        let dir = tempfile::tempdir().unwrap();
        let logs = BuildLogs::open(dir.path()).unwrap();
        let build = BuildId(Uuid::nil());
        assert_eq!(logs.append(build, 0, b"hello").await.unwrap(), Appended::Stored(5));
        assert_eq!(logs.append(build, 0, b"hello").await.unwrap(), Appended::Stored(5));
        assert_eq!(logs.append(build, 3, b"lo world").await.unwrap(), Appended::Stored(11));
        assert_eq!(logs.append(build, 12, b"!").await.unwrap(), Appended::Gap(11));
        assert_eq!(&logs.read(build, 0).await.unwrap()[..], b"hello world");
        assert_eq!(&logs.read(build, 6).await.unwrap()[..], b"world");
        assert!(logs.read(build, 11).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn endless_output_must_stop_at_the_cap() {
        let dir = tempfile::tempdir().unwrap();
        let logs = BuildLogs::open(dir.path()).unwrap();
        let build = BuildId(Uuid::nil());
        let part = vec![b'x'; (LOG_BYTES_MAX - 100) as usize];
        logs.append(build, 0, &part).await.unwrap();
        let length = part.len() as u64;
        assert_eq!(logs.append(build, length, &[b'y'; 200]).await.unwrap(), Appended::Stored(length + 200));
        assert_eq!(logs.append(build, length + 200, b"z").await.unwrap(), Appended::Stored(length + 201));
        let tail = logs.read(build, length).await.unwrap();
        assert!(String::from_utf8_lossy(&tail).contains("is not kept"));
        assert_eq!(tail.len(), 100);
    }
}

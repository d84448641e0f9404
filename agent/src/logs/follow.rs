//! What is appended to an app's logs from now on, without loss across rotations and in bounded memory.
//!
//! A file is held open and read to its end; when its path has come to name another file, the one held is first read to its end
//! (the launcher writes to a file no more once it has renamed it), then the rotated one if that is a third, then the new one. So two
//! rotations between two looks lose nothing: that is 20 MiB in 0.2 s, more than any log rate allows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use berth_wire::log::LogLine;

use super::history::Position;
use super::name::rotated;
use super::source::{Selection, Source, open};

/// Read of one file at one look; what is more waits for the next, which then follows at once.
const LOOK_BYTES_MAX: usize = 1 << 20;

/// Follows the logs of one app.
#[derive(Debug)]
pub struct Follower {
    selection: Selection,
    files: BTreeMap<Source, Followed>,
}

#[derive(Debug)]
struct Followed {
    file: File,
    offset: u64,
}

/// What one look found.
#[derive(Debug, Default)]
pub struct Look {
    /// New lines, in order of time.
    pub lines: Vec<LogLine>,
    /// Whether there is more to read at once.
    pub more: bool,
}

impl Follower {
    /// Goes on where a history ended.
    pub fn new(selection: Selection, positions: Vec<Position>) -> Self {
        let followed = |p: Position| (p.source, Followed { file: p.file, offset: p.offset });
        Self { selection, files: positions.into_iter().map(followed).collect() }
    }

    /// Reads what is new.
    pub fn look(&mut self) -> Look {
        let mut look = Look::default();
        for source in self.selection.sources() {
            if !self.files.contains_key(&source)
                && let Some(followed) = first(source.path())
            {
                self.files.insert(source, followed);
            }
        }
        self.files.retain(|source, followed| match followed.look(source, &mut look) {
            Ok(keep) => keep,
            Err(error) => {
                tracing::warn!(%error, path = %source.path().display(), "could not read a log any further");
                false
            }
        });
        look.lines.sort_by_key(|line| line.at);
        look
    }
}

/// A log that appeared: from its start, and from its rotated part if it was rotated before it was seen.
fn first(path: &Path) -> Option<Followed> {
    let file = open(&rotated(path)).or_else(|_| open(path)).ok()?;
    Some(Followed { file, offset: 0 })
}

impl Followed {
    /// Reads on; false once the log is gone and read to its end.
    fn look(&mut self, source: &Source, look: &mut Look) -> io::Result<bool> {
        let path = source.path();
        loop {
            // Asked before reading: what the old file has after this, it had before it was renamed.
            let now_at_path = inode(path)?;
            if self.read(source, look)? {
                look.more = true;
                return Ok(true);
            }
            let ours = self.file.metadata()?.ino();
            if now_at_path == Some(ours) {
                return Ok(true);
            }
            let at_rotated = inode(&rotated(path))?;
            let next = match (at_rotated, now_at_path) {
                (Some(other), _) if other != ours => rotated(path),
                (_, Some(_)) => path.to_owned(),
                // Renamed, and the new file is not there yet; or trimmed altogether.
                (Some(_), None) => return Ok(true),
                (None, None) => return Ok(false),
            };
            match open(&next) {
                Ok(file) => *self = Followed { file, offset: 0 },
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads complete lines up to the end of the file or the bound; whether the bound was met.
    fn read(&mut self, source: &Source, look: &mut Look) -> io::Result<bool> {
        let mut bytes = vec![0; LOOK_BYTES_MAX];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], self.offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let full = filled == bytes.len();
        // A full block without a newline is no line of the launcher's or the edge's: it is passed over whole.
        let complete = match bytes[..filled].iter().rposition(|&b| b == b'\n') {
            Some(newline) => newline + 1,
            None if full => filled,
            None => 0,
        };
        for line in bytes[..complete].split(|&b| b == b'\n') {
            look.lines.extend(source.lines(line));
        }
        self.offset += complete as u64;
        Ok(full)
    }
}

fn inode(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use berth_wire::id::AppId;
    use uuid::Uuid;

    use super::super::history::history;
    use super::super::name::{LogName, app_dir};
    use super::super::source::Places;
    use super::*;

    const APP: AppId = AppId(Uuid::from_u128(7));

    struct Log {
        dir: tempfile::TempDir,
        written: u64,
    }

    impl Log {
        fn new() -> Self {
            let log = Self { dir: tempfile::tempdir().unwrap(), written: 0 };
            std::fs::create_dir(app_dir(log.dir.path(), APP)).unwrap();
            log
        }

        fn name() -> LogName {
            LogName::parse("web.1.01980000-0000-7000-8000-000000000001.log").unwrap()
        }

        fn path(&self) -> PathBuf {
            app_dir(self.dir.path(), APP).join(Self::name().file_name())
        }

        fn access(&self) -> PathBuf {
            self.dir.path().join("access.log")
        }

        fn write(&mut self, lines: u64) {
            let mut file = File::options().append(true).create(true).open(self.path()).unwrap();
            for _ in 0..lines {
                self.written += 1;
                writeln!(file, "{0} line {0}", self.written).unwrap();
            }
        }

        fn rotate(&self) {
            std::fs::rename(self.path(), rotated(&self.path())).unwrap();
        }

        fn follow(&self) -> Follower {
            let places = Places { instances: self.dir.path().to_owned(), access: self.access() };
            let selection = Selection { places, app: APP, process: None };
            let (_, positions) = history(&selection.sources(), 0);
            Follower::new(selection, positions)
        }
    }

    fn texts(follower: &mut Follower) -> Vec<String> {
        follower.look().lines.into_iter().map(|l| l.text).collect()
    }

    #[test]
    fn what_was_there_before_must_not_come_again() {
        let mut log = Log::new();
        log.write(3);
        let mut follower = log.follow();
        assert!(texts(&mut follower).is_empty());
        log.write(1);
        assert_eq!(texts(&mut follower), ["line 4"]);
    }

    #[test]
    fn no_line_must_be_lost_or_doubled_across_rotations() {
        let mut log = Log::new();
        log.write(2);
        let mut follower = log.follow();
        let mut seen = vec![];
        for (lines, rotations) in [(5, 1), (3, 2), (0, 1), (7, 0), (1, 2)] {
            log.write(lines);
            for _ in 0..rotations {
                if log.path().exists() {
                    log.rotate();
                }
                log.write(2);
            }
            seen.extend(texts(&mut follower));
        }
        let wanted: Vec<String> = (3..=log.written).map(|n| format!("line {n}")).collect();
        assert_eq!(seen, wanted);
    }

    #[test]
    fn the_apps_own_requests_must_come_from_the_edge_across_its_rotation() {
        let log = Log::new();
        let request = |app: AppId, path: &str| {
            format!(
                "{{\"time\":\"2026-11-24T16:20:00Z\",\"method\":\"GET\",\"host\":\"h\",\"path\":\"{path}\",\"status\":200,\
                 \"bytes\":1,\"queue_ms\":0,\"connect_ms\":0,\"service_ms\":1,\"client\":\"::1\",\"request_id\":\"r\",\
                 \"app_id\":\"{app}\",\"process\":\"web.1\",\"code\":null}}\n"
            )
        };
        let other = AppId(Uuid::from_u128(8));
        std::fs::write(log.access(), request(APP, "/before")).unwrap();
        let mut follower = log.follow();
        let mut file = File::options().append(true).open(log.access()).unwrap();
        file.write_all((request(APP, "/a") + &request(other, "/b")).as_bytes()).unwrap();
        std::fs::rename(log.access(), rotated(&log.access())).unwrap();
        std::fs::write(log.access(), request(other, "/c") + &request(APP, "/d")).unwrap();
        let seen = texts(&mut follower);
        assert!(seen.len() == 2 && seen[0].contains("\"/a\"") && seen[1].contains("\"/d\""), "{seen:?}");
        let (past, _) = history(&follower.selection.sources(), 2);
        assert!(past.len() == 2 && past[0].text.contains("\"/a\""), "{past:?}");
    }

    #[test]
    fn an_incomplete_line_must_wait_until_it_is_whole() {
        let mut log = Log::new();
        log.write(1);
        let mut follower = log.follow();
        let mut file = File::options().append(true).open(log.path()).unwrap();
        file.write_all(b"9 hal").unwrap();
        assert!(texts(&mut follower).is_empty());
        file.write_all(b"f\n").unwrap();
        assert_eq!(texts(&mut follower), ["half"]);
    }

    #[test]
    fn an_instance_that_appears_later_must_be_followed_from_its_start() {
        let mut log = Log::new();
        let mut follower = log.follow();
        log.write(2);
        assert_eq!(texts(&mut follower), ["line 1", "line 2"]);
    }

    #[test]
    fn much_at_once_must_come_in_bounded_looks() {
        let mut log = Log::new();
        log.write(1);
        let mut follower = log.follow();
        log.write(200_000);
        let mut count = 0;
        loop {
            let look = follower.look();
            assert!(look.lines.len() < 150_000);
            count += look.lines.len();
            if !look.more {
                break;
            }
        }
        assert_eq!(count, 200_000);
    }

    #[test]
    fn a_log_that_was_trimmed_must_be_let_go() {
        let mut log = Log::new();
        log.write(1);
        let mut follower = log.follow();
        std::fs::remove_file(log.path()).unwrap();
        assert!(texts(&mut follower).is_empty());
        assert!(follower.files.is_empty());
    }
}

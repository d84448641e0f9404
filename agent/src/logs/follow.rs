//! What is appended to an app's logs from now on, without loss across rotations and in bounded memory.
//!
//! A file is held open and read to its end; when its path has come to name another file, the one held is first read to its end
//! (the launcher writes to a file no more once it has renamed it), then the rotated one if that is a third, then the new one. So two
//! rotations between two looks lose nothing: that is 20 MiB in 0.2 s, more than any log rate allows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use berth_wire::log::LogLine;

use super::history::Position;
use super::line::parse;
use super::name::{LogName, list, rotated};

/// Read of one file at one look; what is more waits for the next, which then follows at once.
const LOOK_BYTES_MAX: usize = 1 << 20;

/// Follows the logs of one app.
#[derive(Debug)]
pub struct Follower {
    app_dir: PathBuf,
    filter: Option<String>,
    files: BTreeMap<LogName, Followed>,
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
    pub fn new(app_dir: PathBuf, filter: Option<String>, positions: Vec<Position>) -> Self {
        let followed = |p: Position| (p.name, Followed { file: p.file, offset: p.offset });
        Self { app_dir, filter, files: positions.into_iter().map(followed).collect() }
    }

    /// Reads what is new.
    pub fn look(&mut self) -> Look {
        let mut look = Look::default();
        for name in list(&self.app_dir, self.filter.as_deref()) {
            if !self.files.contains_key(&name)
                && let Some(followed) = first(&self.app_dir.join(name.file_name()))
            {
                self.files.insert(name, followed);
            }
        }
        let app_dir = self.app_dir.clone();
        self.files.retain(|name, followed| {
            let path = app_dir.join(name.file_name());
            match followed.look(&path, &name.label(), &mut look) {
                Ok(keep) => keep,
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "could not read a log any further");
                    false
                }
            }
        });
        look.lines.sort_by_key(|line| line.at);
        look
    }
}

/// A log that appeared: from its start, and from its rotated part if it was rotated before it was seen.
fn first(path: &Path) -> Option<Followed> {
    let file = File::open(rotated(path)).or_else(|_| File::open(path)).ok()?;
    Some(Followed { file, offset: 0 })
}

impl Followed {
    /// Reads on; false once the log is gone and read to its end.
    fn look(&mut self, path: &Path, label: &str, look: &mut Look) -> io::Result<bool> {
        loop {
            // Asked before reading: what the old file has after this, it had before it was renamed.
            let now_at_path = inode(path)?;
            if self.read(label, look)? {
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
            match File::open(next) {
                Ok(file) => *self = Followed { file, offset: 0 },
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads complete lines up to the end of the file or the bound; whether the bound was met.
    fn read(&mut self, label: &str, look: &mut Look) -> io::Result<bool> {
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
        // A full block without a newline is no line of the launcher's: it is passed over whole.
        let complete = match bytes[..filled].iter().rposition(|&b| b == b'\n') {
            Some(newline) => newline + 1,
            None if full => filled,
            None => 0,
        };
        for line in bytes[..complete].split(|&b| b == b'\n') {
            look.lines.extend(parse(line).into_iter().map(|stamped| stamped.into_line(label)));
        }
        self.offset += complete as u64;
        Ok(full)
    }
}

fn inode(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::history::history;
    use super::*;

    struct Log {
        dir: tempfile::TempDir,
        written: u64,
    }

    impl Log {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap(), written: 0 }
        }

        fn name() -> LogName {
            LogName::parse("web.1.01980000-0000-7000-8000-000000000001.log").unwrap()
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join(Self::name().file_name())
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
            let (_, positions) = history(self.dir.path(), &[Self::name()], 0);
            Follower::new(self.dir.path().to_owned(), None, positions)
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

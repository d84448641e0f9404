//! The last lines of several instances' logs, merged by time: reads only as much of each file as is needed.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_wire::log::LogLine;

use super::backwards::Backwards;
use super::name::{LogName, rotated};
use super::source::{self, Source};

/// Most bytes of text that one history holds in memory: at the average 100 bytes a line more than the 10,000 lines one may ask for.
const HISTORY_BYTES_MAX: usize = 4 << 20;

/// Where following goes on: the file that was the current one, up to the end of what the history gave.
#[derive(Debug)]
pub struct Position {
    /// Whose log.
    pub source: Source,
    /// The file.
    pub file: File,
    /// The end of its last complete line.
    pub offset: u64,
}

/// One log's lines, newest first, the rotated file after the current one.
struct Reader<'a> {
    source: &'a Source,
    files: Vec<Backwards>,
    /// How much more may be read.
    bytes_left: u64,
    /// The newest line not yet taken; a line that was cut in several waits here in its parts.
    waiting: Vec<LogLine>,
}

impl Reader<'_> {
    fn newest(&mut self) -> Option<&LogLine> {
        while self.waiting.is_empty() {
            let backwards = self.files.first_mut()?;
            match backwards.next_line() {
                Ok(Some(line)) => {
                    self.waiting = self.source.lines(&line);
                    self.bytes_left = self.bytes_left.saturating_sub(line.len() as u64 + 1);
                    if self.bytes_left == 0 {
                        self.files.clear();
                    }
                }
                // The end of a file, or one that was trimmed under our hands.
                Ok(None) | Err(_) => {
                    self.files.remove(0);
                }
            }
        }
        self.waiting.last()
    }
}

/// The last `lines` lines of these logs, oldest first, and where to go on.
pub fn history(sources: &[Source], lines: usize) -> (Vec<LogLine>, Vec<Position>) {
    let mut readers = Vec::new();
    let mut positions = Vec::new();
    for source in sources {
        match open(source) {
            Ok((files, position)) => {
                let bytes_left = source.history_bytes_max();
                readers.push(Reader { source, files, bytes_left, waiting: Vec::new() });
                positions.extend(position);
            }
            Err(error) => {
                tracing::debug!(%error, path = %source.path().display(), "a log went away while it was opened")
            }
        }
    }
    let mut newest_first = Vec::new();
    let mut bytes = 0;
    while newest_first.len() < lines && bytes < HISTORY_BYTES_MAX {
        let newest = (0..readers.len()).filter_map(|n| Some((readers[n].newest()?.at, n))).max();
        let Some((_, reader)) = newest else { break };
        let Some(line) = readers[reader].waiting.pop() else { break };
        bytes += line.text.len();
        newest_first.push(line);
    }
    newest_first.reverse();
    (newest_first, positions)
}

/// The last lines of one instance as plain text.
pub fn tail(app_dir: &Path, name: &LogName, lines: usize) -> Vec<String> {
    history(&[Source::of_instance(app_dir, name)], lines).0.into_iter().map(|line| line.text).collect()
}

fn open(source: &Source) -> io::Result<(Vec<Backwards>, Option<Position>)> {
    let mut files = Vec::new();
    let mut position = None;
    let mut current = None;
    // Between a rotation's rename and the new file's first line only the rotated one is there, and following goes on from its end.
    for path in [source.path().to_owned(), rotated(source.path())] {
        let file = match source::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let inode = file.metadata()?.ino();
        // A rotation between the two opens: the same file must not be read twice.
        if current == Some(inode) {
            continue;
        }
        current = Some(inode);
        let (backwards, offset) = Backwards::open(file.try_clone()?)?;
        files.push(backwards);
        position.get_or_insert(Position { source: source.clone(), file, offset });
    }
    Ok((files, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u32) -> LogName {
        LogName::parse(&format!("web.{n}.01980000-0000-7000-8000-00000000000{n}.log")).unwrap()
    }

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|l| l.text.as_str()).collect()
    }

    fn sources(dir: &Path, names: &[u32]) -> Vec<Source> {
        names.iter().map(|&n| Source::of_instance(dir, &name(n))).collect()
    }

    #[test]
    fn lines_of_several_instances_must_be_merged_by_time_across_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name(1).file_name());
        std::fs::write(rotated(&path), "1 a\n3 c\n").unwrap();
        std::fs::write(&path, "5 e\n").unwrap();
        std::fs::write(dir.path().join(name(2).file_name()), "2 b\n4 d\n6 f\n7 incompl").unwrap();
        let sources = sources(dir.path(), &[1, 2]);
        let (all, positions) = history(&sources, 100);
        assert_eq!(texts(&all), ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(positions.iter().map(|p| p.offset).collect::<Vec<_>>(), [4, 12]);
        assert_eq!(texts(&history(&sources, 3).0), ["d", "e", "f"]);
        assert_eq!(all[1].process, "web.2");
    }

    #[test]
    fn the_parts_of_a_long_line_must_stay_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let long: String = (0..5_000).map(|n| format!("{n} ")).collect();
        std::fs::write(dir.path().join(name(1).file_name()), format!("1 first\n2 {long}\n")).unwrap();
        let (all, _) = history(&sources(dir.path(), &[1]), 100);
        assert_eq!(texts(&all)[0], "first");
        assert_eq!(texts(&all)[1..].concat(), long);
    }

    #[test]
    fn following_must_go_on_at_the_end_of_a_log_that_was_just_rotated() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(rotated(&dir.path().join(name(1).file_name())), "1 a\n").unwrap();
        let (all, positions) = history(&sources(dir.path(), &[1]), 100);
        assert_eq!((texts(&all), positions[0].offset), (vec!["a"], 4));
    }

    #[test]
    fn a_missing_log_must_give_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tail(dir.path(), &name(1), 10).is_empty());
    }
}

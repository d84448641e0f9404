//! A container's output on its way from the FIFO to the file. Lines are written to the file before they are taken out of
//! the FIFO (tee(2) copies without consuming): a launcher that is killed in between leaves them there, and the next one
//! finds them. So a line can be written twice, and none is lost. What has no newline yet stays in the FIFO. While there is no launcher a
//! container can write 64 KiB before it waits for the next one.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_wire::launch::OutputFile;

use crate::log_file::LogFile;
use crate::rate::LineRate;

/// Most bytes taken from one container before the others have their turn: what a FIFO holds.
pub const BYTES_PER_TURN_MAX: usize = 64 * 1024;

/// Longest line in bytes; a longer one is cut into several. An eighth of the FIFO, so that an unfinished line never fills it.
pub const LINE_BYTES_MAX: usize = 8 * 1024;

/// What is shared by all drains: the pipe that tee copies into, and buffers.
pub struct Scratch {
    read: OwnedFd,
    write: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Scratch {
    /// Makes it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn new() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok(Self { read, write, input: vec![0; BYTES_PER_TURN_MAX], output: Vec::new() })
    }
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// More is there already.
    More,
    /// All complete lines were taken.
    Idle,
}

/// One container's FIFO and file.
pub struct Drain {
    /// The reading end.
    pub fifo: OwnedFd,
    file: LogFile,
    rate: LineRate,
    /// Lines discarded since the container started.
    pub discarded: u64,
    announced: u64,
}

impl Drain {
    /// Drains `fifo` into the file.
    pub fn new(fifo: OwnedFd, output: &OutputFile, discarded: u64) -> Self {
        Self {
            fifo,
            file: LogFile::new(output.path.clone().into(), output.bytes_max),
            rate: LineRate::new(output.lines_per_second),
            discarded,
            announced: discarded,
        }
    }

    /// Changes how many lines a second are let through.
    pub fn set_rate(&mut self, lines_per_second: u32) {
        self.rate.set(lines_per_second);
    }

    /// Moves up to [`BYTES_PER_TURN_MAX`] bytes. With `last`, a line without newline counts as complete.
    ///
    /// # Errors
    /// The kernel's refusal to copy from the FIFO. A file that cannot be written to is no error: those lines are counted as discarded.
    pub fn turn(&mut self, scratch: &mut Scratch, last: bool) -> io::Result<Turn> {
        let copied = self.peek(scratch)?;
        if copied == 0 {
            return Ok(Turn::Idle);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        scratch.output.clear();
        let taken = self.stamp(&scratch.input[..copied], &mut scratch.output, now, last);
        if self.file.append(&scratch.output).is_err() {
            self.discarded += scratch.output.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        consume(&self.fifo, &mut scratch.input[..taken])?;
        Ok(if taken > 0 { Turn::More } else { Turn::Idle })
    }

    /// Copies what the FIFO holds into `scratch.input` and leaves it there.
    fn peek(&self, scratch: &mut Scratch) -> io::Result<usize> {
        let (from, to) = (self.fifo.as_raw_fd(), scratch.write.as_raw_fd());
        // SAFETY: numbers only.
        let copied = match unsafe { libc::tee(from, to, BYTES_PER_TURN_MAX, libc::SPLICE_F_NONBLOCK) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                error => return Err(error),
            },
            copied => copied as usize,
        };
        consume(&scratch.read, &mut scratch.input[..copied])?;
        Ok(copied)
    }

    /// Appends the complete lines of `input` to `output`, stamped, as far as the rate allows; says how many bytes they were.
    fn stamp(&mut self, input: &[u8], output: &mut Vec<u8>, now: Duration, last: bool) -> usize {
        let mut taken = 0;
        while taken < input.len() {
            let rest = &input[taken..];
            let (line, length) = match rest.iter().take(LINE_BYTES_MAX + 1).position(|byte| *byte == b'\n') {
                Some(end) => (&rest[..end], end + 1),
                None if rest.len() >= LINE_BYTES_MAX => (&rest[..LINE_BYTES_MAX], LINE_BYTES_MAX),
                None if last => (rest, rest.len()),
                None => break,
            };
            taken += length;
            if self.rate.take(now) {
                self.announce(output, now);
                // Writing to a Vec cannot fail.
                let _ = write!(output, "{} ", now.as_micros());
                output.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
                output.push(b'\n');
            } else {
                self.discarded += 1;
            }
        }
        taken
    }

    /// A line about lines that are missing, where they are missing.
    fn announce(&mut self, output: &mut Vec<u8>, now: Duration) {
        let missing = self.discarded - self.announced;
        if missing > 0 {
            let _ = writeln!(
                output,
                "{} [berth] R22 {missing} lines discarded: more than {} a second",
                now.as_micros(),
                self.rate.lines_per_second()
            );
            self.announced = self.discarded;
        }
    }
}

/// Reads exactly this much of what is known to be there.
fn consume(from: &OwnedFd, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::read(from, &mut buffer[done..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => done += count,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        writer: File,
        drain: Drain,
        scratch: Scratch,
    }

    fn bench(lines_per_second: u32) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK | rustix::pipe::PipeFlags::CLOEXEC)
                .unwrap();
        let path = dir.path().join("log").to_str().unwrap().to_owned();
        let drain = Drain::new(read, &OutputFile { path, bytes_max: 1 << 20, lines_per_second }, 0);
        Bench { dir, writer: write.into(), drain, scratch: Scratch::new().unwrap() }
    }

    impl Bench {
        fn write(&mut self, text: &str) {
            self.writer.write_all(text.as_bytes()).unwrap();
        }

        fn drain(&mut self, last: bool) -> Vec<String> {
            while self.drain.turn(&mut self.scratch, last).unwrap() == Turn::More {}
            let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
        }
    }

    #[test]
    fn only_complete_lines_must_be_taken_before_the_end() {
        let mut bench = bench(1_000);
        bench.write("one\ntwo\r\nthr");
        assert_eq!(bench.drain(false), ["one", "two"]);
        bench.write("ee\nfour");
        assert_eq!(bench.drain(false), ["one", "two", "three"]);
        assert_eq!(bench.drain(true), ["one", "two", "three", "four"]);
    }

    #[test]
    fn an_unfinished_line_must_survive_the_launcher() {
        let mut bench = bench(1_000);
        bench.write("half");
        assert!(bench.drain(false).is_empty());
        let path = bench.dir.path().join("log").to_str().unwrap().to_owned();
        let output = OutputFile { path, bytes_max: 1 << 20, lines_per_second: 1_000 };
        bench.drain = Drain::new(bench.drain.fifo.try_clone().unwrap(), &output, 0);
        bench.write(" whole\n");
        assert_eq!(bench.drain(false), ["half whole"]);
    }

    #[test]
    fn an_endless_line_must_be_cut() {
        let mut bench = bench(1_000);
        bench.write(&"x".repeat(LINE_BYTES_MAX + 5));
        assert_eq!(bench.drain(false).len(), 1);
        assert_eq!(bench.drain(true).last().unwrap(), "xxxxx");
    }

    #[test]
    fn lines_above_the_rate_must_be_discarded_and_counted() {
        let mut bench = bench(10);
        for number in 0..30 {
            bench.write(&format!("{number}\n"));
        }
        assert_eq!(bench.drain(false).len(), 10);
        assert_eq!(bench.drain.discarded, 20);
    }
}

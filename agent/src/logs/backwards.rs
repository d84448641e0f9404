//! One file's complete lines, newest first, in bounded memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Read at a time.
const BLOCK_BYTES: u64 = 64 << 10;

/// A longer run without a newline is no line of the launcher's; it is given out in pieces so that memory stays bounded.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The lines of a file from a fixed end to its start.
#[derive(Debug)]
pub struct Backwards {
    file: File,
    /// Where `unread` begins in the file.
    at: u64,
    unread: Vec<u8>,
    done: bool,
}

impl Backwards {
    /// Starts at the end of the last complete line; says where that is.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(file: File) -> io::Result<(Self, u64)> {
        let mut end = file.metadata()?.len();
        let mut backwards = Self { file, at: end, unread: Vec::new(), done: false };
        loop {
            if let Some(newline) = backwards.unread.iter().rposition(|&b| b == b'\n') {
                end = backwards.at + newline as u64 + 1;
                backwards.unread.truncate(newline);
                return Ok((backwards, end));
            }
            if backwards.at == 0 {
                backwards.done = true;
                return Ok((backwards, 0));
            }
            // An incomplete last line is not kept: the follower reads it when it is whole.
            backwards.unread.clear();
            backwards.read_block()?;
        }
    }

    /// The next older line, without its newline.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.done {
            return Ok(None);
        }
        loop {
            if let Some(newline) = self.unread.iter().rposition(|&b| b == b'\n') {
                let line = self.unread.split_off(newline + 1);
                self.unread.pop();
                return Ok(Some(line));
            }
            if self.at == 0 || self.unread.len() >= LINE_BYTES_MAX {
                self.done = self.at == 0;
                return Ok(Some(std::mem::take(&mut self.unread)));
            }
            self.read_block()?;
        }
    }

    /// Puts the block before `at` in front of what is unread.
    fn read_block(&mut self) -> io::Result<()> {
        let length = self.at.min(BLOCK_BYTES);
        let mut block = vec![0; length as usize];
        self.file.read_exact_at(&mut block, self.at - length)?;
        self.at -= length;
        block.append(&mut self.unread);
        self.unread = block;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(content: &[u8]) -> (Vec<String>, u64) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let (mut backwards, end) = Backwards::open(file).unwrap();
        let mut lines = vec![];
        while let Some(line) = backwards.next_line().unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        (lines, end)
    }

    #[test]
    fn lines_must_come_newest_first_without_the_incomplete_one() {
        assert_eq!(lines(b"1 a\n2 b\n3 c"), (vec!["2 b".into(), "1 a".into()], 8));
        assert_eq!(lines(b""), (vec![], 0));
        assert_eq!(lines(b"1 incomplete"), (vec![], 0));
    }

    #[test]
    fn lines_that_cross_blocks_must_be_whole() {
        let wanted: Vec<String> = (0..40_000).map(|n| format!("{n} line number {n}")).collect();
        let content: String = wanted.iter().map(|l| format!("{l}\n")).collect();
        let (mut found, end) = lines(content.as_bytes());
        found.reverse();
        assert_eq!(end, content.len() as u64);
        assert!(found == wanted);
    }

    #[test]
    fn a_run_without_newline_must_stay_bounded() {
        let mut content = vec![b'x'; 3 << 20];
        content.push(b'\n');
        let (found, _) = lines(&content);
        assert!(found.len() > 1 && found.iter().all(|l| l.len() <= LINE_BYTES_MAX + BLOCK_BYTES as usize));
    }
}

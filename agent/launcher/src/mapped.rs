//! A command (see `berth_wire::launch::Command`) mapped into memory and cut into strings, ready for execve. Arguments and environment
//! may hold secrets: they are never copied into the launcher's heap, and the mapping ends with the launch.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_char;

/// Bytes of the header: three counts.
const HEADER: usize = 12;
/// Most bytes; `berth_wire` encodes no more.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The mapping and the pointers into it.
pub struct Mapped {
    base: *mut libc::c_void,
    length: usize,
    /// Candidates, NULL, arguments, NULL, environment, NULL.
    pointers: Vec<*const c_char>,
    counts: [usize; 3],
}

impl Mapped {
    /// Maps a file that holds a command.
    ///
    /// # Errors
    /// A malformed one, or the kernel's refusal.
    pub fn new(fd: impl AsFd) -> io::Result<Self> {
        let fd = fd.as_fd();
        let length = rustix::fs::fstat(fd)?.st_size as u64;
        if !(HEADER as u64..=BYTES_MAX).contains(&length) {
            return Err(malformed("its size is out of bounds"));
        }
        // SAFETY: a new private mapping of a sealed file at an address that the kernel chooses.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length as usize,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut mapped = Self { base, length: length as usize, pointers: Vec::new(), counts: [0; 3] };
        mapped.cut()?;
        Ok(mapped)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is `length` bytes and lives as long as self. The sender sealed the file, and is root in any case.
        unsafe { std::slice::from_raw_parts(self.base.cast(), self.length) }
    }

    fn cut(&mut self) -> io::Result<()> {
        let bytes = self.bytes();
        let mut counts = [0; 3];
        for (count, chunk) in counts.iter_mut().zip(bytes[..HEADER].chunks_exact(4)) {
            *count = chunk.iter().rev().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        }
        let mut rest = &bytes[HEADER..];
        let mut pointers = Vec::with_capacity(counts.iter().sum::<usize>().min(rest.len()) + 3);
        for count in counts {
            for _ in 0..count {
                let end = rest
                    .iter()
                    .position(|byte| *byte == 0)
                    .ok_or_else(|| malformed("a string has no end"))?;
                pointers.push(rest.as_ptr().cast());
                rest = &rest[end + 1..];
            }
            pointers.push(std::ptr::null());
        }
        (self.pointers, self.counts) = (pointers, counts);
        Ok(())
    }

    /// What to try, first to last.
    pub fn candidates(&self) -> &[*const c_char] {
        &self.pointers[..self.counts[0]]
    }

    /// The argument vector, NULL at its end.
    pub fn argv(&self) -> *const *const c_char {
        self.pointers[self.counts[0] + 1..].as_ptr()
    }

    /// The environment, NULL at its end.
    pub fn envp(&self) -> *const *const c_char {
        self.pointers[self.counts[0] + self.counts[1] + 2..].as_ptr()
    }
}

fn malformed(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {reason}"))
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.base, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn a_command_must_come_back_as_it_was_encoded() {
        let env = [("PATH".to_owned(), "/a:/b".to_owned())];
        let argv = ["x".to_owned(), "y".to_owned()];
        let command = berth_wire::launch::Command::new(&argv, env.iter().map(|(k, v)| (k, v))).unwrap();
        let fd = crate::memory_file::sealed(c"test", command.as_bytes()).unwrap();
        let mapped = Mapped::new(&fd).unwrap();
        // SAFETY: pointers of `mapped` are to C strings of its mapping.
        let text = |pointer: *const c_char| unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned();
        let candidates: Vec<_> = mapped.candidates().iter().map(|c| text(*c)).collect();
        assert_eq!(candidates, ["/a/x", "/b/x"]);
        // SAFETY: two arguments and the NULL after them; one variable and the NULL after it.
        unsafe {
            assert_eq!(text(*mapped.argv()), "x");
            assert_eq!(text(*mapped.argv().add(1)), "y");
            assert!((*mapped.argv().add(2)).is_null());
            assert_eq!(text(*mapped.envp()), "PATH=/a:/b");
            assert!((*mapped.envp().add(1)).is_null());
        }
    }

    #[test]
    fn counts_beyond_the_content_must_be_refused() {
        let fd = crate::memory_file::sealed(c"test", &[255; 40]).unwrap();
        assert!(Mapped::new(&fd).is_err());
    }
}

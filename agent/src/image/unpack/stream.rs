//! The bytes of an archive: what they are compressed with, how many come out, and what digest they have.

use std::io::{self, BufRead as _, BufReader, Read};

use berth_wire::digest::Digest;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::extract::Limits;

/// The largest zstd window, as a power of two: what `zstd --long` makes at most without being told so.
const WINDOW_LOG_MAX: u32 = 27;
const BUFFER_BYTES: usize = 128 << 10;

/// What is refused about the bytes themselves; travels inside an [`io::Error`], since it happens within a read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bomb {
    #[error("it unpacks to more than {0} bytes")]
    Bytes(u64),
    #[error("it unpacks to more than {0} times its size")]
    Ratio(u64),
    #[error("one entry's name and attributes take more than {0} bytes")]
    Headers(u64),
}

/// What may still be read until the next entry's content; unlimited while content is read.
#[derive(Debug, Default)]
pub(super) struct HeaderAllowance(std::cell::Cell<Option<u64>>);

impl HeaderAllowance {
    pub(super) fn limit(&self, bytes: u64) {
        self.0.set(Some(bytes));
    }

    pub(super) fn lift(&self) {
        self.0.set(None);
    }

    fn take(&self, bytes: u64, limits: &Limits) -> Result<(), Bomb> {
        let Some(left) = self.0.get() else { return Ok(()) };
        self.0.set(Some(left.checked_sub(bytes).ok_or(Bomb::Headers(limits.header_bytes_max))?));
        Ok(())
    }
}

/// The uncompressed bytes, counted, limited and hashed as they pass.
pub(super) struct Plain<'a> {
    inner: Box<dyn Read + 'a>,
    hasher: Sha256,
    bytes: u64,
    limits: &'a Limits,
    compressed: &'a std::cell::Cell<u64>,
    headers: &'a HeaderAllowance,
}

/// Counts what is read from it.
pub(super) struct Counted<'a, R> {
    pub inner: R,
    pub count: &'a std::cell::Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.set(self.count.get() + length as u64);
        Ok(length)
    }
}

impl<'a> Plain<'a> {
    /// Looks at the first bytes (RFC 1952 2.3.1; RFC 8878 3.1.1); what is neither gzip nor zstd is taken as plain.
    pub(super) fn open(
        source: impl Read + 'a,
        limits: &'a Limits,
        compressed: &'a std::cell::Cell<u64>,
        headers: &'a HeaderAllowance,
    ) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(BUFFER_BYTES, Counted { inner: source, count: compressed });
        let start = source.fill_buf()?;
        let inner: Box<dyn Read + 'a> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(MultiGzDecoder::new(source))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Box::new(decoder)
        } else {
            Box::new(source)
        };
        Ok(Self { inner, hasher: Sha256::new(), bytes: 0, limits, compressed, headers })
    }

    /// Reads what is left (tars are padded) and says what digest all of it has.
    pub(super) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest::from_hasher(self.hasher))
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.bytes += length as u64;
        let Limits { bytes_max, ratio_max, ratio_free_bytes, .. } = *self.limits;
        if self.bytes > bytes_max {
            return Err(io::Error::other(Bomb::Bytes(bytes_max)));
        }
        if self.bytes > ratio_free_bytes && self.bytes / ratio_max > self.compressed.get() {
            return Err(io::Error::other(Bomb::Ratio(ratio_max)));
        }
        self.headers.take(length as u64, self.limits).map_err(io::Error::other)?;
        Ok(length)
    }
}

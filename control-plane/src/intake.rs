//! Source trees coming in, from a push or an upload: they are bounded and checked while they stream into a blob, then
//! a build is queued for them.

use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::id::{AppId, BuildId};
use uuid::Uuid;

use crate::app::App;
use crate::blobs::{BlobError, Upload};
use crate::store::builds::{self, BuildRow};
use crate::store::{StoreError, stacks};

/// Most bytes of all files of a source tree. Heroku's limit for a slug is 500 MiB; a source is less than its result.
pub const SOURCE_BYTES_MAX: u64 = 1 << 30;
/// Most files of a source tree: a vendored node_modules has some 50,000.
pub const SOURCE_FILES_MAX: u64 = 200_000;
/// Most bytes of the tar: the files, and per file a header and padding of 512 bytes each.
const TAR_BYTES_MAX: u64 = SOURCE_BYTES_MAX + SOURCE_FILES_MAX * 1024 + (1 << 20);

/// Why a source tree was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It breaks a rule: a code and a sentence for whoever sent it.
    #[error("{0} {1}")]
    Refused(Code, String),
    /// It could not be stored.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IntakeError {
    fn too_large() -> Self {
        let mib = SOURCE_BYTES_MAX >> 20;
        let sentence = format!(
            "the source has more than {SOURCE_FILES_MAX} files or {mib} MiB; keep data and built files out of it"
        );
        Self::Refused(Code::B22, sentence)
    }
}

/// A source tree that is streaming in.
pub struct Intake {
    upload: Upload,
    scan: TarScan,
}

impl Intake {
    /// Begins to take one.
    ///
    /// # Errors
    /// It cannot be stored.
    pub async fn begin(app: &App) -> Result<Self, IntakeError> {
        Ok(Self { upload: app.blobs.begin(TAR_BYTES_MAX).await?, scan: TarScan::default() })
    }

    /// Takes the next bytes of the tar.
    ///
    /// # Errors
    /// They are not of a tar, too many, or cannot be stored.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), IntakeError> {
        self.scan.feed(bytes)?;
        match self.upload.write(bytes).await {
            Err(BlobError::TooLarge { .. }) => Err(IntakeError::too_large()),
            other => Ok(other?),
        }
    }

    /// The source as a blob.
    ///
    /// # Errors
    /// It is empty, cut off, or cannot be stored.
    pub async fn finish(self) -> Result<Digest, IntakeError> {
        self.scan.finish()?;
        Ok(self.upload.finish(None).await?)
    }
}

/// What is built, and for whom.
pub struct Wanted<'a> {
    /// The app.
    pub app: AppId,
    /// The source.
    pub source: Digest,
    /// The commit, for a push.
    pub commit: Option<String>,
    /// Whose token asked.
    pub by: &'a str,
    /// Whether success makes a release by itself.
    pub releases: bool,
}

/// Queues a build on the newest stack.
///
/// # Errors
/// There is no stack, or the store failed.
pub async fn queue_build(app: &App, wanted: Wanted<'_>) -> Result<BuildRow, IntakeError> {
    let mut tx = app.store.begin().await?;
    let stack = stacks::list(&mut tx).await?.into_iter().next().ok_or_else(|| {
        let sentence = "no stack image has been imported, so nothing can be built yet; whoever runs this Berth \
             imports one with deploy/stack";
        IntakeError::Refused(Code::A20, sentence.to_owned())
    })?;
    let row = BuildRow::queued(
        BuildId(Uuid::now_v7()),
        wanted.app,
        (wanted.source, stack.image),
        wanted.commit,
        (wanted.by, wanted.releases),
        app.clock.now(),
    );
    builds::insert(&mut tx, &row).await?;
    tx.commit().await.map_err(StoreError::from)?;
    tracing::info!(build = %row.id, app = %row.app, commit = row.commit, by = %row.by, "build queued");
    app.wakes.plan();
    app.wakes.changed();
    Ok(row)
}

const BLOCK: usize = 512;

/// Reads the headers of a tar that streams by (POSIX.1-2017, pax, ustar Interchange Format) and counts.
#[derive(Default)]
struct TarScan {
    header: Vec<u8>,
    /// Bytes of the current file still to pass, padding included.
    skip: u64,
    files: u64,
    bytes: u64,
    ended: bool,
}

impl TarScan {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), IntakeError> {
        while !bytes.is_empty() && !self.ended {
            if self.skip > 0 {
                let passed = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip -= passed as u64;
                bytes = &bytes[passed..];
                continue;
            }
            let wanted = (BLOCK - self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if self.header.len() == BLOCK {
                self.entry()?;
                self.header.clear();
            }
        }
        Ok(())
    }

    fn entry(&mut self) -> Result<(), IntakeError> {
        if self.header.iter().all(|b| *b == 0) {
            self.ended = true;
            return Ok(());
        }
        let size = checked_size(&self.header).ok_or_else(|| {
            let sentence = "the body is not a tar; send an uncompressed one, as `berth deploy .` does";
            IntakeError::Refused(Code::A13, sentence.to_owned())
        })?;
        self.skip = size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
        // Directories do not make a source; pax and GNU headers (x, g, L, K) are not entries of their own.
        if matches!(self.header[156], 0 | b'0' | b'1' | b'2' | b'7') {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(size);
        }
        if self.files > SOURCE_FILES_MAX || self.bytes > SOURCE_BYTES_MAX {
            return Err(IntakeError::too_large());
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), IntakeError> {
        if self.skip > 0 || !self.header.is_empty() {
            let sentence = "the tar was cut off; nothing was built, send it again";
            return Err(IntakeError::Refused(Code::A13, sentence.to_owned()));
        }
        if self.files == 0 {
            let sentence = "the source has no files: nothing to build; commit something first";
            return Err(IntakeError::Refused(Code::B11, sentence.to_owned()));
        }
        Ok(())
    }
}

/// The size in a header whose checksum is right.
fn checked_size(header: &[u8]) -> Option<u64> {
    let octal = |field: &[u8]| {
        let text = std::str::from_utf8(field).ok()?.trim_matches(|c| c == ' ' || c == '\0').to_owned();
        if text.is_empty() { Some(0) } else { u64::from_str_radix(&text, 8).ok() }
    };
    // The checksum counts its own field as spaces.
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u64::from(*b) })
        .sum();
    if octal(&header[148..156])? != sum {
        return None;
    }
    let size = &header[124..136];
    if size[0] & 0x80 != 0 {
        // GNU's base-256 for sizes above 8 GiB: far above any limit here.
        return Some(u64::MAX / 2);
    }
    octal(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One ustar entry.
    pub fn entry(name: &str, content: &[u8]) -> Vec<u8> {
        let mut header = vec![0u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = b'0';
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        header.extend_from_slice(content);
        header.resize(header.len().div_ceil(BLOCK) * BLOCK, 0);
        header
    }

    fn code(scanned: Result<(), IntakeError>) -> Option<Code> {
        match scanned {
            Err(IntakeError::Refused(code, _)) => Some(code),
            _ => None,
        }
    }

    fn scan(tar: &[u8]) -> Result<TarScan, IntakeError> {
        let mut scan = TarScan::default();
        // Odd pieces: headers are cut across reads.
        for piece in tar.chunks(97) {
            scan.feed(piece)?;
        }
        scan.finish()?;
        Ok(scan)
    }

    #[test]
    fn files_and_bytes_must_be_counted() {
        let mut tar = entry("a", b"hello");
        tar.extend(entry("b", &[7; 1000]));
        tar.extend([0; 1024]);
        let scan = scan(&tar).unwrap_or_default();
        assert_eq!((scan.files, scan.bytes), (2, 1005));
    }

    #[test]
    fn what_is_no_tar_or_empty_or_cut_off_must_be_refused() {
        assert_eq!(code(scan(&[b'x'; 2000]).map(drop)), Some(Code::A13));
        assert_eq!(code(scan(b"").map(drop)), Some(Code::B11));
        assert_eq!(code(scan(&[0; 1024]).map(drop)), Some(Code::B11));
        let whole = entry("a", &[1; 600]);
        assert_eq!(code(scan(&whole[..1000]).map(drop)), Some(Code::A13));
    }

    #[test]
    fn a_size_above_the_limit_must_be_refused_at_its_header() {
        let mut huge = entry("a", b"");
        huge[124..135].copy_from_slice(b"77777777777");
        huge[148..156].fill(b' ');
        let sum: u64 = huge.iter().map(|b| u64::from(*b)).sum();
        huge[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        assert_eq!(code(scan(&huge).map(drop)), Some(Code::B22));
    }
}

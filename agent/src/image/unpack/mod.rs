//! Unpacking hostile layers. The root agent never parses one: it starts its own binary as `unpack`, which has a user
//! namespace with nothing in it but the unpacker's id range, no network, Landlock on everything but the one directory,
//! and four capabilities over its own files; it gets the directory through an idmapped mount, so that ids on disk start at 0.
//!
//! ```text
//! agent                                          child (stdin: socket, stdout: verdict)
//!   spawn ────────────────────────────────────>  unshare user, network, ipc, uts, cgroup namespaces
//!   uid_map, gid_map              <── "ready" ──
//!   idmapped clone of the directory
//!   send directory, tar ───────────────────────> become the range's root, drop the rest, Landlock
//!   feed the tar ══════════════════════════════> [`extract`]
//!   opaque directories, publish   <── verdict ──
//! ```
//! Here is the agent's side; `child` is the other; `extract`, `stream`, `name` and `refusal` hold the rules for archives.

mod child;
mod extract;
mod idmap;
mod name;
mod refusal;
mod stream;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use berth_wire::digest::Digest;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

pub use child::main;
pub use extract::Limits;

use super::ImageError;

/// What became of a tar.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unpacked {
    /// The digest of the uncompressed bytes.
    pub diff_id: Digest,
    /// Bytes of file content.
    pub bytes: u64,
    /// Directories that hide what is below them, as paths from the root; marked by the agent, since it takes a
    /// privilege the child has not.
    pub opaque: Vec<String>,
}

/// What the child prints as its last word.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Unpacked(Unpacked),
    /// The archive breaks a rule; the sentence says which.
    Refused(String),
    /// The file system is full.
    Full,
    /// Something else failed.
    Failed(String),
}

/// The longest verdict: a million opaque directories would be refused before, by their tar entries.
const VERDICT_BYTES_MAX: u64 = 64 << 20;
/// The child's message that its namespaces are there.
const READY: [u8; 5] = *b"ready";
/// Size of the pieces the tar is fed in.
const PIECE_BYTES: usize = 128 << 10;

/// Unpacks a tar (plain, gzip or zstd) into an empty directory.
pub(super) async fn unpack(
    unpacker: &Path,
    uid_base: u32,
    directory: &Path,
    mut tar: impl AsyncRead + Unpin,
) -> Result<Unpacked, ImageError> {
    let failed = |action: &'static str| {
        let directory = directory.to_owned();
        move |source: io::Error| ImageError::Io { action, path: directory, source }
    };
    let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket to unpack into"))?;
    // The child's end blocks: it has nothing else to do.
    let theirs =
        theirs.into_std().and_then(|socket| socket.set_nonblocking(false).map(|()| OwnedFd::from(socket)));
    let theirs = theirs.map_err(failed("prepare to unpack into"))?;
    let mut child = tokio::process::Command::new(unpacker)
        .arg("unpack")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| ImageError::Io { action: "start", path: unpacker.to_owned(), source })?;
    let mut stdout = child.stdout.take().ok_or(ImageError::Interrupted)?.take(VERDICT_BYTES_MAX);
    let mut stderr = child.stderr.take().ok_or(ImageError::Interrupted)?.take(4_096);
    let conversation = async {
        let mut ready = [0; READY.len()];
        let mut ours = ours;
        if ours.read_exact(&mut ready).await.is_err() || ready != READY {
            // It ended early: its verdict says why.
            return Ok(());
        }
        let pid = child.id().ok_or(ImageError::Interrupted)?;
        let mapped = idmap::confine(pid, uid_base, directory).map_err(failed("map user ids on"))?;
        let (writer, reader) =
            tokio::net::unix::pipe::pipe().map_err(failed("make a pipe to unpack into"))?;
        send(&ours, &mapped, reader).map_err(failed("hand over"))?;
        drop(mapped);
        feed(&mut tar, writer).await
    };
    let (fed, verdict, said) = tokio::join!(conversation, read_all(&mut stdout), read_all(&mut stderr));
    let verdict = verdict.map_err(failed("hear the unpacker of"))?;
    let status = child.wait().await.map_err(failed("wait for the unpacker of"))?;
    // A source that broke off is the cause of whatever the child says about a short archive.
    fed?;
    match serde_json::from_slice(&verdict) {
        Ok(Verdict::Unpacked(unpacked)) => Ok(unpacked),
        Ok(Verdict::Refused(reason)) => Err(ImageError::Refused(reason)),
        Ok(Verdict::Full) => Err(ImageError::Full(directory.to_owned())),
        Ok(Verdict::Failed(reason)) => Err(ImageError::Unpacker(reason)),
        Err(_) => {
            let said = said.unwrap_or_default();
            let said = String::from_utf8_lossy(&said).trim().chars().take(300).collect::<String>();
            Err(ImageError::Unpacker(format!("it ended with {status}: {said}")))
        }
    }
}

async fn read_all(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn send(socket: &UnixStream, directory: &OwnedFd, tar: tokio::net::unix::pipe::Receiver) -> io::Result<()> {
    let tar = tar.into_blocking_fd()?;
    let fds = [directory.as_fd(), tar.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // The socket is empty, so that one small message never blocks.
    rustix::net::sendmsg(socket, &[io::IoSlice::new(b"go")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Copies the tar to the child. That the child stops reading is no error here: its verdict says why.
async fn feed(
    tar: &mut (impl AsyncRead + Unpin),
    mut to: tokio::net::unix::pipe::Sender,
) -> Result<(), ImageError> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = tar.read(&mut piece).await.map_err(ImageError::Source)?;
        if length == 0 || to.write_all(&piece[..length]).await.is_err() {
            return Ok(());
        }
    }
}

/// Unpacks in this process, with whatever privilege it has: for fuzzing the rules alone.
///
/// # Errors
/// The sentence that refuses the archive.
pub fn extract_here(
    tar: impl io::Read,
    directory: std::os::fd::BorrowedFd<'_>,
    limits: &Limits,
) -> Result<Unpacked, String> {
    extract::extract(tar, directory, limits).map_err(|refusal| refusal.sentence())
}

/// Marks directories as opaque for overlayfs (overlayfs.rst, whiteouts and opaque directories). One that a later entry of the
/// archive replaced is not there any more, and what replaced it hides what is below by itself.
pub(super) fn mark_opaque(root: &Path, directories: &[String]) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags, fsetxattr, openat2};
    use rustix::io::Errno;
    let root = std::fs::File::open(root)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for directory in directories {
        let directory = if directory.is_empty() { "." } else { directory };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match openat2(&root, directory, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            opened => opened?,
        };
        fsetxattr(&fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
    }
    Ok(())
}

//! The child's side: from a root process with one socket to one that can do nothing but fill one directory.

use std::fs::File;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use landlock::{ABI, Access as _, AccessFs, PathBeneath, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::extract::{self, Limits};
use super::refusal::Refusal;
use super::{READY, Verdict};

/// Most memory: zstd's largest accepted window (128 MiB), headers, and room.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Descriptors: the directory, the tar, standard ones, one parent, one file.
const FILES_MAX: u64 = 64;

/// What `berth-agent unpack` does: speaks the protocol in the parent module over standard input. It must run before
/// the process has a second thread. Of no use to people.
pub fn main() -> ExitCode {
    let verdict = match confined() {
        Ok((directory, tar)) => {
            match extract::extract(File::from(tar), directory.as_fd(), &Limits::default()) {
                Ok(unpacked) => Verdict::Unpacked(unpacked),
                Err(Refusal::Io(error)) if is_full(&error) => Verdict::Full,
                Err(refusal) => Verdict::Refused(refusal.sentence()),
            }
        }
        Err(error) => Verdict::Failed(error.to_string()),
    };
    let code = if matches!(verdict, Verdict::Unpacked(_)) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    // Nobody is left to tell if the agent does not listen.
    let _ = serde_json::to_vec(&verdict).map(|text| io::stdout().write_all(&text));
    code
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Gives up everything; returns the directory and the tar.
fn confined() -> io::Result<(OwnedFd, OwnedFd)> {
    let step =
        |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let namespaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).map_err(io::Error::from).map_err(step("unshare"))?;
    let socket = io::stdin();
    rustix::io::write(&socket, &READY).map_err(io::Error::from).map_err(step("report to the agent"))?;
    let (directory, tar) = receive(&socket).map_err(step("receive the directory"))?;
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[]).map_err(io::Error::from).map_err(step("drop groups"))?;
    setresgid(root.1, root.1, root.1).map_err(io::Error::from).map_err(step("change group"))?;
    setresuid(root.0, root.0, root.0).map_err(io::Error::from).map_err(step("change user"))?;
    for (resource, limit) in [
        (Resource::RLIMIT_AS, MEMORY_BYTES_MAX),
        (Resource::RLIMIT_NOFILE, FILES_MAX),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, limit, limit).map_err(io::Error::from).map_err(step("limit itself"))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(io::Error::from).map_err(step("set no_new_privs"))?;
    restrict(&directory).map_err(step("restrict itself with Landlock"))?;
    // What it takes to give files the owners, modes and setuid bits the archive says; all within the namespace.
    let needed =
        CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::FSETID;
    let sets = CapabilitySets { effective: needed, permitted: needed, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
        .map_err(io::Error::from)
        .map_err(step("drop capabilities"))?;
    // The umask is the archive's business, too.
    rustix::process::umask(rustix::fs::Mode::empty());
    Ok((directory, tar))
}

fn receive(socket: &io::Stdin) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 8];
    recvmsg(socket, &mut [io::IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    match (fds.next(), fds.next()) {
        (Some(directory), Some(tar)) => Ok((directory, tar)),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

/// No file operation outside the directory (best effort below kernel 6.2; the user namespace holds in any case).
fn restrict(directory: &OwnedFd) -> io::Result<()> {
    let all = AccessFs::from_all(ABI::V3);
    Ruleset::default()
        .handle_access(all)
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rule(PathBeneath::new(directory, all & !AccessFs::Execute)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map(drop)
        .map_err(io::Error::other)
}

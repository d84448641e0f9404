//! What a container is to be: all that [`super::Host::start`] needs to know, decided by its caller.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_wire::attach::TerminalSize;
use berth_wire::code::Code;
use berth_wire::id::InstanceId;
use berth_wire::quota::Quota;
use berth_wire::report::Exit;

use super::steps::StepTime;
use crate::bundle::BUILD_CAPABILITIES;
use crate::launch::InnerPipes;
use crate::network::Endpoint;

/// A container to start.
#[derive(Debug)]
pub struct ContainerSpec {
    /// Which instance it is.
    pub id: InstanceId,
    /// Its host name, at most 63 characters of a DNS label.
    pub hostname: String,
    /// The image's layers, lowest first; the caller holds the lease on them.
    pub layers: Vec<PathBuf>,
    /// Argument vector.
    pub argv: Vec<String>,
    /// The whole environment. May hold secrets: never logged.
    pub env: BTreeMap<String, String>,
    /// Working directory inside.
    pub cwd: String,
    /// User and group id inside.
    pub user: (u32, u32),
    /// What it may use.
    pub quota: Quota,
    /// Directories or files of the host that it sees.
    pub binds: Vec<Bind>,
    /// Where its output goes.
    pub output: Output,
    /// Which capabilities it has.
    pub capabilities: Capabilities,
    /// Whether it has a network beyond its loopback.
    pub network: bool,
}

/// A directory or file of the host that a container sees. On-disk ids are shown as ids inside, from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is inside; made if missing.
    pub target: PathBuf,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// Where a container's output goes.
#[derive(Debug)]
pub enum Output {
    /// Standard output and error, as stamped lines, into a file whose directory exists; standard input is /dev/null.
    File {
        /// The file; rotated once to `.1`.
        path: PathBuf,
        /// Its largest size in bytes.
        bytes_max: u64,
        /// Lines a second above which lines are discarded and counted.
        lines_per_second: u32,
    },
    /// The three standard streams are these.
    Fds {
        /// Standard input; /dev/null if none.
        stdin: Option<OwnedFd>,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// The three standard streams are these pipes, which are given to the command's user.
    Pipes(InnerPipes),
    /// A terminal, whose master is sent through the socket ([`crate::launch::receive_terminal`]).
    Terminal {
        /// The command's end.
        socket: OwnedFd,
        /// Its size.
        size: TerminalSize,
    },
}

/// Which capabilities a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capabilities {
    /// An app's: none at all.
    App,
    /// A build step's that runs as root inside: CRI-O's nine, over its own user namespace only.
    Build,
}

impl Capabilities {
    /// Their numbers.
    pub fn numbers(self) -> Vec<u8> {
        match self {
            Self::App => vec![],
            Self::Build => BUILD_CAPABILITIES.to_vec(),
        }
    }
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its place in the network, if it has one.
    pub endpoint: Option<Endpoint>,
    /// The host's pid of its init.
    pub pid: u32,
    /// How long each step took.
    pub steps: Vec<StepTime>,
}

/// A container that was found when the agent started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Which.
    pub id: InstanceId,
    /// Its place in the network, if it has one.
    pub endpoint: Option<Endpoint>,
    /// The host's pid of its init.
    pub pid: u32,
    /// How it ended; none while it runs.
    pub exit: Option<Exit>,
}

/// Why a container could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// The stable code: R19 if the command cannot be executed, D13 for a full disk, R25 for a container that does not run,
    /// else R20.
    pub code: Code,
    /// One sentence for people: what was tried, on what, and why it failed.
    pub message: String,
    /// What a shell would exit with, if the command is to blame: 127 if it is not there, 126 if it cannot be executed.
    pub status: Option<u8>,
}

//! The messages: one packet each, descriptors beside it. The launcher answers every request with one [`Reply`] of the same
//! number and sends [`Event`]s to every connection in between. It never waits for a reader: a connection whose buffer
//! is full is closed, and whoever connects again asks with `List` what happened meanwhile.

use serde::{Deserialize, Serialize};

use super::plan::FdIndex;
use crate::id::{ExecId, InstanceId};
use crate::report::Exit;

/// Name of the socket in the launcher's directory.
pub const SOCKET_NAME: &str = "launcher.sock";

/// Largest packet in bytes. The largest message is a launch: two paths and some numbers.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// Most descriptors beside one packet (SCM_MAX_FD of the kernel is 253).
pub const DESCRIPTORS_MAX: usize = 253;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The reply carries the same number.
    pub number: u64,
    /// What is wanted.
    pub body: RequestBody,
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum RequestBody {
    /// Makes a user and a network namespace; answered by [`Reply::Namespaces`] with two descriptors in that order.
    Namespaces(Namespaces),
    /// Parks a process in the v1 cgroups whose `cgroup.procs` are beside it, for one launch later; answered by [`Reply::Parked`].
    Park,
    /// Starts a container; answered by [`Reply::Launched`] once the command was executed.
    Launch(Box<Launch>),
    /// Starts another command in a running container; answered by [`Reply::Executed`] with one descriptor once it was executed. It
    /// ends with the container.
    Exec(Box<Exec>),
    /// Sends a signal to the main process of a container.
    Signal {
        /// Which.
        id: InstanceId,
        /// The signal's number.
        signal: u8,
    },
    /// Kills every process of a container.
    Kill {
        /// Which.
        id: InstanceId,
    },
    /// Forgets a container that ended (idempotent).
    Forget {
        /// Which.
        id: InstanceId,
    },
    /// Asks for every container; answered by [`Reply::Children`] with one descriptor of a memfd that holds `[Child]` as JSON.
    List,
    /// Asks for one container; answered by [`Reply::Child`].
    Status {
        /// Which.
        id: InstanceId,
    },
    /// Changes how many lines a second a container may log; nothing if its output leads to descriptors.
    LogRate {
        /// Which.
        id: InstanceId,
        /// Lines a second; those above are discarded and counted.
        lines_per_second: u32,
    },
    /// Replaces the program by the newest on disk, in place: the same process, the same children.
    Upgrade,
}

/// Namespaces that a container will own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// The kernel's id that root inside is.
    pub uid_base: u32,
    /// How many ids follow each other from there.
    pub uid_count: u32,
    /// How many user namespaces may be made inside.
    pub nested_max: u32,
}

/// A container to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Which. One that the launcher knows already is refused with EEXIST.
    pub id: InstanceId,
    /// A memfd with the [`super::Plan`] as JSON.
    pub plan: FdIndex,
    /// The unified cgroup's directory that it is born into.
    pub cgroup: Option<FdIndex>,
    /// The socket of a process that is parked in its v1 cgroups; the last of the descriptors.
    #[serde(default)]
    pub parked: Option<FdIndex>,
    /// The first id of the range it uses; remembered for whoever asks.
    pub uid_base: u32,
    /// Where what it writes is kept; absent if its streams lead to descriptors.
    pub output: Option<OutputFile>,
}

/// A command to start in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// In which container. One that does not run is refused with ESRCH.
    pub id: InstanceId,
    /// What the event of its end will be about.
    pub exec: ExecId,
    /// A memfd with the [`super::Plan`] as JSON. Its steps and main steps are done by one process. The pidfd of the container's
    /// init is added by the launcher as the last descriptor, after those that came with the message.
    pub plan: FdIndex,
    /// The container's unified cgroup, which it is born into.
    pub cgroup: Option<FdIndex>,
}

/// A file that a container's output goes to, as lines `<unix microseconds> <text>`. Full, it is renamed to `.1` once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its absolute path on the host; the directory exists.
    pub path: String,
    /// Its largest size in bytes.
    pub bytes_max: u64,
    /// Lines a second; those above are discarded and counted.
    pub lines_per_second: u32,
}

/// What the launcher sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "packet", rename_all = "snake_case")]
pub enum Packet {
    /// The answer to a request.
    Reply {
        /// The request's number.
        number: u64,
        /// The answer.
        reply: Reply,
    },
    /// Something happened.
    Event {
        /// What.
        event: Event,
    },
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Two descriptors: user namespace, network namespace.
    Namespaces,
    /// Two descriptors: the parked process's socket, on which it sends one packet once it is in the groups, and which ends it when
    /// it is closed; and the process itself.
    Parked,
    /// The command is running.
    Launched {
        /// The host's pid of the container's init.
        pid: u32,
    },
    /// The command is running in its container. One descriptor: its pidfd.
    Executed {
        /// The host's pid of it.
        pid: u32,
    },
    /// Done.
    Done,
    /// One descriptor: a memfd with `[Child]` as JSON.
    Children,
    /// The container asked for, if the launcher knows it.
    Child {
        /// It.
        child: Option<Child>,
    },
    /// It could not be done.
    Failed(LaunchFailure),
}

/// What failed: which step, and the kernel's reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {}", std::io::Error::from_raw_os_error(*.errno))]
pub struct LaunchFailure {
    /// What was tried, in words.
    pub step: String,
    /// Whether it was the execution of the command itself: then the image or the command is to blame.
    pub executing: bool,
    /// Why.
    pub errno: i32,
}

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It ended, and everything it wrote is in its output file.
    Exited {
        /// Which.
        id: InstanceId,
        /// How. An OOM kill shows as signal 9 here; the cgroup's counter tells them apart.
        exit: Exit,
    },
    /// A command that was started in a running container ended.
    ExecEnded {
        /// Which.
        exec: ExecId,
        /// How.
        exit: Exit,
    },
}

/// A container that the launcher knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Which.
    pub id: InstanceId,
    /// The host's pid of its init.
    pub pid: u32,
    /// The first id of its range.
    pub uid_base: u32,
    /// Whether it runs.
    pub state: ChildState,
    /// Lines of output discarded because of the rate.
    pub lines_discarded: u64,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// Its steps are being carried out.
    Starting,
    /// Its command runs.
    Running,
    /// It ended like this and was not forgotten yet.
    Exited(Exit),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_must_survive_its_encoding() {
        let request = Request {
            number: 7,
            body: RequestBody::Launch(Box::new(Launch {
                id: InstanceId(uuid::Uuid::nil()),
                plan: FdIndex(0),
                cgroup: Some(FdIndex(1)),
                parked: None,
                uid_base: 1 << 30,
                output: Some(OutputFile { path: "/log".into(), bytes_max: 10, lines_per_second: 5 }),
            })),
        };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }

    #[test]
    fn a_failure_must_name_step_and_reason() {
        let failure = LaunchFailure { step: "mask /proc/kcore".into(), executing: false, errno: 40 };
        assert_eq!(failure.to_string(), "mask /proc/kcore: Too many levels of symbolic links (os error 40)");
    }
}

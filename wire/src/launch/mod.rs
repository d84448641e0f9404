//! Between the agent and the launcher: the container plan (a list of steps, sealed in a memfd) and the messages
//! over a SEQPACKET socket. The plan is decided by the agent's `bundle/`; the launcher carries the steps out in order and
//! reports the first that fails as (step, errno). A protection is a step: a test that takes the step out sees the attack succeed.

mod command;
mod message;
mod plan;

pub use command::{Command, InvalidCommand};
pub use message::{
    Child, ChildState, DESCRIPTORS_MAX, Event, Exec, Launch, LaunchFailure, Namespaces, OutputFile,
    PACKET_BYTES_MAX, Packet, Reply, Request, RequestBody, SOCKET_NAME,
};
pub use plan::{Device, FdIndex, LAYERS_MAX, Plan, Resource, SecurityLabel, Step, Stream};

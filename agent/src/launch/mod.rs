//! The agent's side of the launcher: an asynchronous client that reconnects, what is sent along (detached mounts, sealed files), and the
//! ranges of user ids. What a container is made of is decided in `bundle/`; what the launcher does with it is its own business.

mod client;
mod connection;
mod filter;
mod keyboard;
mod outputs;
mod parcel;
mod parked;
mod process;
mod processors;
mod security;
mod streams;
mod uid_ranges;

pub use client::{LaunchError, Launcher, NamespacePair};
pub use filter::seccomp_file;
pub use keyboard::{Keyboard, own_terminal_size};
pub use parcel::{Parcel, sealed_file, tree};
pub use parked::Parked;
pub use process::Process;
pub use processors::processors;
pub use security::{
    NOT_LOADED, PROFILE, SecurityModule, load_security_policy, profile_mode, security_label, security_module,
};
pub use streams::{InnerPipes, OuterPipes, Terminal, give_to, pipes, receive_terminal, terminal_socket};
pub use uid_ranges::UidRanges;

//! The launcher: parent of all containers. It clones them by the plan that the agent sends, reaps them, keeps how they ended, and drains
//! their output into files; it also supervises the edge. Small and with one thread, so that it needs no upkeep and forks cheaply. What a
//! container is made of is the agent's decision (`bundle/`), and nothing here parses an image or an environment.

pub mod child;
pub mod children;
pub mod clone;
pub mod edge;
pub mod exec;
pub mod handover;
pub mod instance;
pub mod kernel;
pub mod log_file;
pub mod mapped;
pub mod memory_file;
pub mod namespaces;
pub mod output;
pub mod parked;
pub mod prepare;
pub mod rate;
mod requests;
pub mod server;
pub mod shared_memory;
pub mod skeleton;
pub mod socket;

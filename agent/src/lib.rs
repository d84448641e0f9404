//! The agent: makes a host match its spec. Each module's header says what belongs in it.

pub mod cgroup;
pub mod container;
pub mod disk;
pub mod doctor;
pub mod image;
pub mod installation;
pub mod launch;
pub mod network;
pub mod routes;

//! The agent: makes a host match its spec. Each module's header says what belongs in it.

pub mod attach;
pub mod build;
pub mod bundle;
pub mod cgroup;
pub mod config;
pub mod container;
pub mod disk;
pub mod doctor;
pub mod health;
pub mod idle;
pub mod image;
pub mod installation;
pub mod journal;
pub mod launch;
pub mod ledger;
pub mod link;
pub mod logs;
pub mod metrics;
pub mod network;
pub mod reconcile;
pub mod routes;
pub mod run;
pub mod sampling;
pub mod serve;
pub mod teardown;

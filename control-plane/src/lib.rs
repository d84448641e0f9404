//! The control plane: the API, git push, the image registry and the planner over one SQLite store.
//!
//! | module | holds |
//! |---|---|
//! | [`config`], [`app`], [`router`] | what `berthd` was told, what every handler shares, the table of routes |
//! | [`access`] | who may do what: the one place that decides it |
//! | [`api`] | `/v1`: one file per resource |
//! | [`git`], [`intake`] | push; source trees coming in |
//! | [`registry`], [`agents`] | images; what hosts ask and say |
//! | [`blobs`], [`build_logs`] | content by digest, build output |
//! | [`sessions`], [`log_sources`], [`attach`] | streams from agents behind NAT: logs, metrics, attached commands |
//! | [`domain`], [`plan`] | pure rules; they import no I/O and no clock |
//! | [`store`] | the only place with SQL |
//! | [`tasks`] | background loops |
//! | [`metrics`] | what the control plane counts about itself |

pub mod access;
pub mod admin;
pub mod agents;
pub mod api;
pub mod app;
pub mod attach;
pub mod blobs;
pub mod build_logs;
pub mod config;
pub mod domain;
pub mod git;
pub mod intake;
pub mod log_sources;
pub mod metrics;
pub mod plan;
pub mod private;
pub mod registry;
pub mod router;
pub mod serve;
pub mod sessions;
pub mod store;
pub mod tasks;

#[cfg(test)]
mod scenarios;

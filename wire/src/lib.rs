//! What crosses a process boundary, and nothing else: serde types with their bounds, no I/O, no clock.
//!
//! | module | between |
//! |---|---|
//! | [`spec`], [`report`], [`session`] | control plane and agent |
//! | [`attach`] | command line and agent, through the control plane |
//! | [`launch`] | agent and launcher |
//! | [`edge`] | agent and edge |
//! | [`api`] | control plane and everybody else (CLI, dashboard, scripts) |
//! | [`terminal`] | whoever wrote output and whoever is shown it |
//! | [`id`], [`name`], [`digest`], [`quota`], [`image`], [`log`], [`code`] | words the others share |
//!
//! A type is validated once, where it is parsed; past that point its invariant holds. What only one
//! process needs does not belong here.

pub mod api;
pub mod attach;
pub mod code;
pub mod digest;
pub mod edge;
pub mod id;
pub mod image;
pub mod launch;
pub mod log;
pub mod name;
pub mod quota;
pub mod report;
pub mod session;
pub mod spec;
pub mod terminal;

//! Pure rules: what a release is made of and where it may go from there, what an instance runs, what a change
//! to config or formation means. No I/O, no clock, no ids made here: they are arguments.

pub mod app;
pub mod build;
pub mod command_line;

pub mod environment;
pub mod formation;
pub mod host;
pub mod one_off;
pub mod placed;
pub mod release;

//! The v2 controllers: [`cpu`], [`memory`], [`io`]; pids has the same files on both versions and is in v1's folder with its
//! counters. Each file has its limits (pure) and what is sampled from it.

pub(super) mod cpu;
pub(super) mod io;
pub(super) mod memory;

/// The controllers that must be there.
pub(super) const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

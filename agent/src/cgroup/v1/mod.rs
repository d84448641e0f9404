//! The v1 controllers that a hybrid machine's containers use: [`cpu`], [`memory`], [`pids`], [`io`]. Each file has its
//! limits (pure) and what is sampled from it. Everything else (kill, populated, cpu usage, device rule) is done through the container's
//! unified group, which a hybrid machine has too.
//!
//! Not to be had on v1, and not faked: memory.high and memory.low (the floor protects nothing under pressure; placement alone
//! honours it), memory.oom.group (whoever reads the OOM counter kills the rest, so a survivor may run for one more
//! sampling interval), and throttling of buffered writes.

pub(super) mod cpu;
pub(super) mod io;
pub(super) mod memory;
pub(super) mod pids;

/// The controllers used, by the name the kernel mounts them under.
pub(super) const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "blkio"];

//! /dev with its nodes, /dev/pts, /dev/shm and /tmp. The tmpfs may grow to the memory quota, which it counts against.

use berth_wire::launch::{Device, Plan, Step};

use super::Input;

/// The nodes that a container has (OCI runtime spec 1.2, config-linux.md, Default Devices), without console.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Debian's group `tty`, which every distribution gives the same number.
const TTY_GROUP: u32 = 5;

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    let node = |(name, major, minor): &(&str, u32, u32)| Device {
        name: (*name).to_owned(),
        major: *major,
        minor: *minor,
    };
    plan.steps.extend([
        Step::Tmpfs { bytes_max: input.quota.memory_bytes.max, owner: input.uid_base },
        Step::Dev { nodes: NODES.iter().map(node).collect(), owner: input.uid_base },
        Step::Devpts { tty_group: input.uid_base + TTY_GROUP },
        Step::Shm,
        Step::Tmp,
    ]);
}

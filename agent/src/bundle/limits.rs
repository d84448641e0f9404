//! Limits of single processes; those of the whole container are its cgroup's.

use berth_wire::launch::{Plan, Resource, Step};

use super::Input;

/// Locked memory of one process in bytes: the kernel's default of 8 MiB, since 5.16.
const LOCKED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes in message queues of one user: the kernel's default.
const MESSAGE_QUEUE_BYTES_MAX: u64 = 819_200;

/// Processes of one user: the largest that a quota can be. The control group holds the container to its own, which can
/// change while it runs (this cannot), and counts what it refused.
const PROCESSES_MAX: u64 = 4_194_304;

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    let limits = [
        (Resource::Core, 0),
        (Resource::OpenFiles, input.quota.open_files),
        (Resource::Processes, PROCESSES_MAX),
        (Resource::LockedMemory, LOCKED_BYTES_MAX),
        (Resource::MessageQueue, MESSAGE_QUEUE_BYTES_MAX),
    ];
    plan.steps.extend(limits.into_iter().map(|(resource, value)| Step::Limit { resource, value }));
}

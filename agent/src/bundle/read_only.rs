//! What of proc and sysfs can be read but not written to.

use berth_wire::launch::{Plan, Step};

use super::Input;

const PATHS: [&str; 7] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys", "/sys/fs/cgroup"];

pub(super) fn rule(_input: &Input, plan: &mut Plan) {
    plan.steps.extend(PATHS.iter().map(|path| Step::ReadOnly { path: (*path).to_owned() }));
}

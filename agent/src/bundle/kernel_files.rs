//! proc, sysfs and the cgroup hierarchy. What of them is hidden or read-only is in `masks` and `read_only`.

use berth_wire::launch::{Plan, Step};

use super::Input;

pub(super) fn rule(_input: &Input, plan: &mut Plan) {
    plan.steps.extend([Step::Proc, Step::Sysfs, Step::CgroupFs]);
}

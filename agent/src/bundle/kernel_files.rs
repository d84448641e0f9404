//! proc, sysfs and the cgroup hierarchy. What of them is hidden or read-only is in `masks` and `read_only`.

use berth_wire::launch::{Plan, Step};

use super::Input;

/// When the whole machine is out of memory, an app goes before anything that has not asked for it (0) and long before the daemons,
/// whose own value the command would inherit; half of the range leaves a host's owner room on both sides.
const OOM_SCORE_ADJUST: i16 = 500;

/// Every process of a container has it.
pub(super) const SCORE: Step = Step::OomScoreAdjust { adjustment: OOM_SCORE_ADJUST };

pub(super) fn rule(_input: &Input, plan: &mut Plan) {
    plan.steps.extend([Step::Proc, SCORE, Step::Sysfs, Step::CgroupFs]);
}

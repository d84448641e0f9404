//! The new root, then the user namespace, then the user. Capabilities outside the bounding set can never come back, so it is
//! cut while there is still the capability to do so.

use berth_wire::launch::{Plan, Step};

use super::Input;

pub(super) fn pivot(_input: &Input, plan: &mut Plan) {
    plan.steps.push(Step::PivotRoot);
}

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    let (user, group) = input.user;
    plan.steps.extend([
        Step::EnterUser { namespace: input.user_namespace },
        Step::Bounding { keep: input.capabilities.clone() },
        Step::Identity { user, group, groups: vec![] },
    ]);
}

//! Capabilities: permitted and effective are what was asked for, inheritable and ambient empty; and none can be gained.

use berth_wire::launch::{Plan, Step};

use super::Input;

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    // A user other than root lost them with the identity; asking for them again would be refused.
    let keep = if input.user.0 == 0 { input.capabilities.clone() } else { vec![] };
    plan.steps.extend([Step::Capabilities { keep }, Step::NoNewPrivileges]);
}

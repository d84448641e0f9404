//! The security module's name for what the container may do, where there is such a module.

use berth_wire::launch::{Plan, Step};

use super::Input;

/// Taken before the privilege on the host is given up: afterwards the process's own files in proc are not its own to write.
pub(super) fn rule(input: &Input, plan: &mut Plan) {
    plan.steps.extend(input.label.clone().map(|label| Step::Label { label }));
}

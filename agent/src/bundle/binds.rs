//! What of the host the container sees, idmapped like its layers.

use berth_wire::launch::{Plan, Step};

use super::Input;

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    for bind in &input.binds {
        plan.steps.push(Step::Bind {
            tree: bind.tree,
            idmap: Some(input.user_namespace),
            path: bind.path.clone(),
            owner: input.uid_base,
        });
        if bind.read_only {
            plan.steps.push(Step::ReadOnly { path: bind.path.clone() });
        }
    }
}

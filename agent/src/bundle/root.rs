//! The root: shared read-only layers and the private upper, all idmapped, so that ids on disk start at 0 whatever range the
//! container has; no device nodes and no set-user-ID on it.

use berth_wire::launch::{Plan, Step};

use super::Input;

/// What must be there to mount on, in whatever image.
const MOUNT_POINTS: [&str; 4] = ["/proc", "/sys", "/dev", "/tmp"];

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    let idmap = Some(input.user_namespace);
    plan.steps.extend(input.layers.iter().map(|tree| Step::Layer { tree: *tree, idmap }));
    plan.steps.push(Step::Scratch { tree: input.scratch, idmap });
    plan.steps.push(Step::Overlay { owner: input.uid_base });
    plan.steps.push(Step::NoDevices { path: "/".into() });
    plan.steps.push(Step::NoSetuid { path: "/".into() });
    for path in MOUNT_POINTS {
        plan.steps.push(Step::Directory { path: path.into(), owner: input.uid_base });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_must_be_idmapped_in_order() {
        let input = crate::bundle::example();
        let mut plan = Plan { steps: vec![], main: vec![] };
        rule(&input, &mut plan);
        let idmap = Some(input.user_namespace);
        assert_eq!(plan.steps[0], Step::Layer { tree: input.layers[0], idmap });
        assert_eq!(plan.steps[1], Step::Layer { tree: input.layers[1], idmap });
        assert_eq!(plan.steps[2], Step::Scratch { tree: input.scratch, idmap });
    }
}

//! Where the command starts, and the command.

use berth_wire::launch::{Plan, Step};

use super::Input;

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    plan.main.extend([
        Step::WorkingDirectory { path: input.cwd.clone() },
        Step::Execute { command: input.command },
    ]);
}

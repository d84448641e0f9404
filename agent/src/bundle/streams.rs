//! Session, standard streams, and nothing else open.

use berth_wire::launch::{Plan, Step};

use super::Input;

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    let [stdin, stdout, stderr] = input.streams;
    plan.main.extend([Step::Session, Step::Streams { stdin, stdout, stderr }, Step::CloseDescriptors]);
}

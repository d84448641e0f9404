//! Session, standard streams or a terminal, and nothing else open.

use berth_wire::launch::{Plan, Step};

use super::{Input, Standard};

pub(super) fn rule(input: &Input, plan: &mut Plan) {
    let connect = match input.standard {
        Standard::Streams([stdin, stdout, stderr]) => Step::Streams { stdin, stdout, stderr },
        Standard::Terminal { socket, size } => {
            Step::Terminal { socket, rows: size.rows, columns: size.columns }
        }
    };
    plan.main.extend([Step::Session, connect, Step::CloseDescriptors]);
}

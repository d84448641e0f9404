//! Commands that people run (`berth run`): each is placed by the request itself, so that somebody can wait for it; here it
//! is only seen to its end.

use berth_wire::code::Code;
use berth_wire::report::{InstanceReport, InstanceState};
use berth_wire::spec::Work;

use super::{AppState, Look, Step};
use crate::domain::one_off::is_one_off;
use crate::domain::placed::{Placed, RESTARTS_MAX};

/// Those that ended leave their host; how they ended the host has said itself.
pub(crate) fn end_those_that_ended(look: &mut Look<'_>, app: &AppState) {
    let over = |p: &&Placed| p.report.as_ref().is_some_and(|report| is_over(p, report));
    for placed in app.instances.iter().filter(|p| p.runs() && is_one_off(p)).filter(over) {
        look.step(Step::Drain { instance: placed.spec.id, reason: "it has ended".to_owned() });
    }
}

/// Whether it ended; one that cannot be started is given up, at once if somebody is attached and has been told.
fn is_over(placed: &Placed, report: &InstanceReport) -> bool {
    let attached = matches!(&placed.spec.work, Work::OneOff(run) if run.attached.is_some());
    let hopeless = report.trouble.as_ref().is_some_and(|trouble| trouble.code == Code::R19);
    match report.state {
        InstanceState::Exited => true,
        InstanceState::BackingOff => attached || hopeless || report.restarts >= RESTARTS_MAX,
        _ => false,
    }
}

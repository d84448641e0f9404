//! Commands that people run (`berth run`): each is placed by the request itself, so that somebody can wait for it; here it
//! is only seen to its end.

use berth_wire::report::{InstanceReport, InstanceState};

use super::{AppState, Look, Step};
use crate::domain::one_off::is_one_off;
use crate::domain::placed::{Placed, RESTARTS_MAX, describe_exit};

/// Those that ended leave their host, and how they ended is said.
pub(crate) fn end_those_that_ended(look: &mut Look<'_>, app: &AppState) {
    for placed in app.instances.iter().filter(|p| p.runs() && is_one_off(p)) {
        let Some(message) = placed.report.as_ref().and_then(|report| outcome(placed, report)) else { continue };
        let trouble = placed.report.as_ref().and_then(|report| report.trouble.clone());
        look.say(app.app.id, &placed.name(), trouble.as_ref(), message);
        look.step(Step::Drain { instance: placed.spec.id, reason: "it has ended".to_owned() });
    }
}

/// How it ended, if it has; one that cannot be started is given up.
fn outcome(placed: &Placed, report: &InstanceReport) -> Option<String> {
    let attached = matches!(&placed.spec.work, berth_wire::spec::Work::OneOff(run) if run.attached.is_some());
    let given_up = report.state == InstanceState::BackingOff && (attached || report.restarts >= RESTARTS_MAX);
    if report.state != InstanceState::Exited && !given_up {
        return None;
    }
    Some(match (report.last_exit, &report.trouble) {
        (Some(exit), _) => format!("The command {}", describe_exit(exit)),
        (None, Some(trouble)) => format!("The command could not run: {}", trouble.message),
        (None, None) => "The command could not run".to_owned(),
    })
}

//! How a record changes with a change of quota. Pure, as `transition`, of which it is a part.

use berth_wire::code::Code;
use berth_wire::quota::Quota;
use berth_wire::report::RefusedQuota;

use super::record::{Record, Underway};

/// It is in force.
pub(super) fn set(record: &mut Record, quota: Quota) -> Vec<(Option<Code>, String)> {
    end_step(record);
    record.refused = None;
    // Not known before: it was adopted, and nothing changed for anybody.
    let told = record.quota.is_some_and(|before| before != quota);
    record.quota = Some(quota);
    if told { vec![(None, "Quota changed while it runs".to_owned())] } else { Vec::new() }
}

/// It cannot be while the container runs.
pub(super) fn refused(record: &mut Record, refused: RefusedQuota) -> Vec<(Option<Code>, String)> {
    end_step(record);
    let message = format!("{}; a new container takes over where the new quota is kept", refused.reason);
    record.refused = Some(refused);
    vec![(Some(Code::R26), message)]
}

/// The step is over, however it went.
pub(super) fn end_step(record: &mut Record) {
    if record.underway == Some(Underway::Quota) {
        record.underway = None;
    }
}

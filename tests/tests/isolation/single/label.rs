//! The host's security module: what it refuses when nothing else does.

use std::sync::Arc;

use berth_agent::launch::security_label;
use berth_wire::launch::Step;
use berth_wire::report::Exit;

use crate::stage::{Attempt, Stage};
use crate::table;

/// A setting of the container's own network, which root inside may change but for its capabilities and the read-only mount over it.
const SETTING: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// With those taken out, the label alone refuses; without that, too, the attack succeeds.
pub async fn second_fence(stage: Arc<Stage>) -> Result<(), String> {
    if security_label().is_none() {
        println!("not tried: AppArmor is not on here");
        return Ok(());
    }
    let attempt = Attempt::new("write", 0).with([SETTING, "1024"]);
    let first = |s: &Step| match s {
        Step::ReadOnly { path } => path == "/proc/sys",
        Step::Bounding { .. } | Step::Capabilities { .. } => true,
        _ => false,
    };
    let fenced = stage.attempt(&attempt, |plan| plan.without(first)).await.map_err(|e| e.to_string())?;
    let open = stage.attempt(&attempt, |plan| plan.without(|s| first(s) || table::label(s))).await;
    let open = open.map_err(|error| error.to_string())?;
    if fenced == Exit::Code(libc::EACCES as u8) && open == Exit::Code(0) {
        return Ok(());
    }
    Err(format!("behind its label it is {fenced:?}, without {open:?}"))
}

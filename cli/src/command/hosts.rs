//! `berth hosts`: every machine, what is reserved on it and what is wrong with it.

use berth_wire::api::Host;
use jiff::Timestamp;

use crate::failure::Failure;
use crate::quantity;
use crate::screen::{left, right};
use crate::session::Session;

/// Runs it.
///
/// # Errors
/// As the API has it.
pub async fn run(session: &Session<'_>) -> Result<(), Failure> {
    let hosts: Vec<Host> = session.client()?.get("/v1/hosts").await?;
    session.screen.answer(&hosts, |screen| {
        if hosts.is_empty() {
            return screen.line("No hosts yet. On the control plane: berthd host add --name NAME");
        }
        let now = Timestamp::now();
        let columns = [
            left("NAME"),
            left("STATUS"),
            left("SEEN"),
            right("INSTANCES"),
            left("CPU RESERVED"),
            left("MEMORY RESERVED"),
            left("DISK FREE"),
            left("KERNEL"),
            left("AGENT"),
        ];
        screen.table(&columns, hosts.iter().map(|host| row(host, now)));
        for host in &hosts {
            for warning in &host.facts.warnings {
                screen.note(format!("{}: {warning}", host.name));
            }
        }
    })
}

fn row(host: &Host, now: Timestamp) -> Vec<String> {
    let facts = &host.facts;
    vec![
        host.name.clone(),
        if host.up { "up".into() } else { "down".into() },
        host.seen_at.map_or_else(|| "never".into(), |at| quantity::ago(at, now)),
        host.instances.to_string(),
        format!("{} / {}", quantity::cpu(host.cpu_millis_reserved), quantity::cpu(facts.cpu_millis)),
        format!("{} / {}", quantity::bytes(host.memory_bytes_reserved), quantity::bytes(facts.memory_bytes)),
        quantity::bytes(facts.disk_available_bytes),
        facts.kernel.clone(),
        facts.agent_version.clone(),
    ]
}

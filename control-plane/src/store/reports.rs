//! Reports: what a host says, taken apart into the rows it is about, in one transaction.

use std::collections::HashMap;

use berth_wire::api::Event;
use berth_wire::id::{HostId, InstanceId};
use berth_wire::report::{InstanceReport, Report, ReportReceipt};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{StoreError, events, hosts, parse, to_json};

/// What a report changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// For the host.
    pub receipt: ReportReceipt,
    /// Whether the planner has something to look at.
    pub changed: bool,
}

/// Stores a report. Instances that were not placed on this host are ignored: a host speaks for itself only. Events
/// that were stored before are skipped, so a report may be repeated.
///
/// # Errors
/// The store failed.
pub async fn put(
    conn: &mut SqliteConnection,
    host: HostId,
    report: &Report,
    now: Timestamp,
) -> Result<Option<Stored>, StoreError> {
    let Some(before) = hosts::find(conn, host).await? else { return Ok(None) };
    let mut changed = before.seen_at.is_none()
        || before.edge != report.edge
        || before.facts.cpu_millis != report.host.cpu_millis
        || before.facts.memory_bytes != report.host.memory_bytes;
    changed |= instances_put(conn, host, &report.instances).await?;
    let mut received = before.events_received;
    for event in &report.events {
        if event.number <= received {
            continue;
        }
        received = event.number;
        if let Some(app) = event.app {
            let stored = Event {
                at: event.at,
                process: event.process.clone(),
                code: event.code,
                message: event.message.clone(),
            };
            events::insert(conn, app, &stored).await?;
        }
    }
    sqlx::query(
        "UPDATE hosts SET seen_at = ?, facts_json = ?, edge_json = ?, events_received = ? WHERE id = ?",
    )
    .bind(now.as_microsecond())
    .bind(to_json("hosts.facts_json", &report.host)?)
    .bind(to_json("hosts.edge_json", &report.edge)?)
    .bind(received.cast_signed())
    .bind(host.to_string())
    .execute(conn)
    .await?;
    Ok(Some(Stored { receipt: ReportReceipt { events_received: received }, changed }))
}

/// Writes only the rows that differ: most reports repeat the last one.
async fn instances_put(
    conn: &mut SqliteConnection,
    host: HostId,
    reports: &[InstanceReport],
) -> Result<bool, StoreError> {
    let rows: Vec<(String, Option<String>)> =
        sqlx::query_as("SELECT id, report_json FROM instances WHERE host_id = ?")
            .bind(host.to_string())
            .fetch_all(&mut *conn)
            .await?;
    let mut known: HashMap<InstanceId, Option<String>> = HashMap::with_capacity(rows.len());
    for (id, report) in rows {
        known.insert(parse("instances.id", &id)?, report);
    }
    let mut changed = false;
    for report in reports {
        let Some(before) = known.get(&report.id) else { continue };
        let json = to_json("instances.report_json", report)?;
        if before.as_ref() == Some(&json) {
            continue;
        }
        changed = true;
        sqlx::query("UPDATE instances SET report_json = ? WHERE id = ?")
            .bind(json)
            .bind(report.id.to_string())
            .execute(&mut *conn)
            .await?;
    }
    Ok(changed)
}

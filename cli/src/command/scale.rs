//! `berth scale`: how many instances of each process type, and the quota of each instance.

use std::collections::BTreeMap;

use berth_wire::api::{BoundsChange, Change, Formation, FormationChange, QuotaChange};
use berth_wire::name::ProcessType;
use berth_wire::quota::{Bounds, Quota};
use reqwest::Method;

use crate::failure::Failure;
use crate::quantity;
use crate::screen::{left, right};
use crate::session::Session;
use crate::settle;

const FORMS: &str = "\
Changes:
  web=3                      three instances of web
  web.memory=256M            at most 256 MiB for each (the same as web.memory.max=256M)
  web.memory.floor=64M       64 MiB reserved for each
  web.cpu=500m               at most half a core; also 0.5 or 2
  web.pids=100               at most 100 processes and threads
  web.disk=2G                at most 2 GiB written to its own root
  web.log-rate=100           at most 100 log lines a second
  web.cpu.burst=500m         CPU that was not used may be made up for, this much at once
  web.memory.high=400M       slowed down and reclaimed from above 400 MiB (cgroup v2)
  web.swap=256M              at most 256 MiB swapped out, where the host has swap
  web.io=20M                 at most 20 MiB a second read from disk, and 20 written
  web.io.ops=500             at most 500 reads a second, and 500 writes
  web.egress=10M             at most 10 MiB a second sent
  web.nofile=4096            at most 4,096 open files for each process
A change of quota alone reaches running instances without a restart, where they can have it.
Several at once make one release: berth scale web=2 web.memory=1G worker=1";

/// Arguments of `scale`.
#[derive(Debug, clap::Args)]
#[command(after_help = FORMS)]
pub struct Arguments {
    /// Changes; none shows what is
    #[arg(value_name = "CHANGE")]
    changes: Vec<String>,
    /// Come back once the change is accepted
    #[arg(long)]
    no_wait: bool,
}

/// Runs it.
///
/// # Errors
/// A change that cannot be read, or as the API has it.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    let changes = parse(&arguments.changes)
        .map_err(|error| Failure::usage(format!("{error}. `berth scale --help` shows every form")))?;
    let (app, client) = (session.app()?, session.client()?);
    let path = format!("/v1/apps/{app}/formation");
    if changes.is_empty() {
        return show(session, &client.get::<Vec<Formation>>(&path).await?);
    }
    let change: Change = client.call(Method::PATCH, &path, &changes).await?;
    settle::finish(session.screen, &client, &app, change, arguments.no_wait).await
}

fn show(session: &Session<'_>, formation: &[Formation]) -> Result<(), Failure> {
    session.screen.answer(formation, |screen| {
        let columns = [
            left("PROCESS"),
            right("COUNT"),
            left("CPU"),
            left("MEMORY"),
            left("PIDS"),
            left("DISK"),
            left("LOG RATE"),
            left("COMMAND"),
        ];
        screen.table(&columns, formation.iter().map(row));
        for formation in formation {
            screen.line(format!("{}: {}", formation.process, amounts(&formation.quota)));
        }
    })
}

fn row(formation: &Formation) -> Vec<String> {
    let pair =
        |bounds: Bounds, text: fn(u64) -> String| format!("{} / {}", text(bounds.floor), text(bounds.max));
    let plain = |amount: u64| amount.to_string();
    let quota = &formation.quota;
    vec![
        formation.process.to_string(),
        formation.count.to_string(),
        pair(quota.cpu_millis, quantity::cpu),
        pair(quota.memory_bytes, quantity::bytes),
        pair(quota.pids, plain),
        pair(quota.disk_bytes, quantity::bytes),
        pair(quota.log_lines_per_second, plain),
        formation.command.clone().unwrap_or_else(|| "(not in the current release)".into()),
    ]
}

/// What the table has no room for, in the words in which it is changed.
fn amounts(quota: &Quota) -> String {
    let bytes = |amount: u64| if amount == 0 { "none".to_owned() } else { quantity::bytes(amount) };
    format!(
        "cpu.burst {}, memory.high {}, swap {}, io {}/s, io.ops {}/s, egress {}/s, nofile {}",
        quantity::cpu(quota.cpu_burst_millis),
        bytes(quota.memory_high_bytes),
        bytes(quota.swap_bytes),
        quantity::bytes(quota.io_bytes_per_second),
        quota.io_operations_per_second,
        quantity::bytes(quota.egress_bytes_per_second),
        quota.open_files,
    )
}

/// Reads `web=3` and `web.memory.floor=64M`, several of them for one process type into one change.
fn parse(texts: &[String]) -> Result<Vec<FormationChange>, String> {
    let mut changes: BTreeMap<ProcessType, FormationChange> = BTreeMap::new();
    for text in texts {
        let (left, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not a change; write TYPE=COUNT or TYPE.RESOURCE=AMOUNT, such as web=3 or web.memory=256M"))?;
        let mut words = left.split('.');
        let process: ProcessType =
            words.next().unwrap_or_default().parse().map_err(|error| format!("{text:?}: {error}"))?;
        let change = changes.entry(process.clone()).or_insert_with(|| FormationChange {
            process,
            count: None,
            quota: QuotaChange::default(),
        });
        let words: Vec<&str> = words.collect();
        match words.as_slice() {
            [] => {
                let count =
                    value.parse().map_err(|_| format!("{text:?}: {value:?} is not a whole number of instances; write web=3, or web.memory=256M for a quota"))?;
                change.count = Some(count);
            }
            words if amount(&mut change.quota, words).is_some() => {
                if let Some((slot, parse)) = amount(&mut change.quota, words) {
                    *slot = Some(parse(value).map_err(|e| format!("{text:?}: {e}"))?);
                }
            }
            [resource] | [resource, "max"] => {
                let (bounds, amount) =
                    bounds(&mut change.quota, resource, value).map_err(|e| format!("{text:?}: {e}"))?;
                bounds.max = Some(amount);
            }
            [resource, "floor"] => {
                let (bounds, amount) =
                    bounds(&mut change.quota, resource, value).map_err(|e| format!("{text:?}: {e}"))?;
                bounds.floor = Some(amount);
            }
            _ => return Err(unknown(text)),
        }
    }
    Ok(changes.into_values().collect())
}

fn unknown(text: &str) -> String {
    format!(
        "{text:?}: a resource has a .floor and a .max, as in web.memory.floor=64M; beside them there are cpu.burst, memory.high and io.ops"
    )
}

type Parse = fn(&str) -> Result<u64, String>;

/// The amount in the change that is neither floor nor max, and how it is written.
fn amount<'a>(quota: &'a mut QuotaChange, words: &[&str]) -> Option<(&'a mut Option<u64>, Parse)> {
    let bytes: Parse = |value| quantity::parse_bytes(value.strip_suffix("/s").unwrap_or(value));
    Some(match words {
        ["cpu", "burst"] => (&mut quota.cpu_burst_millis, quantity::parse_cpu),
        ["memory", "high"] => (&mut quota.memory_high_bytes, bytes),
        ["swap"] | ["memory", "swap"] => (&mut quota.swap_bytes, bytes),
        ["io"] => (&mut quota.io_bytes_per_second, bytes),
        ["io", "ops"] => (&mut quota.io_operations_per_second, quantity::parse_count),
        ["egress"] => (&mut quota.egress_bytes_per_second, bytes),
        ["nofile"] => (&mut quota.open_files, quantity::parse_count),
        _ => return None,
    })
}

/// The resource's bounds in the change, and the amount in its unit.
fn bounds<'a>(
    quota: &'a mut QuotaChange,
    resource: &str,
    value: &str,
) -> Result<(&'a mut BoundsChange, u64), String> {
    let (slot, amount) = match resource {
        "cpu" => (&mut quota.cpu_millis, quantity::parse_cpu(value)?),
        "memory" => (&mut quota.memory_bytes, quantity::parse_bytes(value)?),
        "pids" => (&mut quota.pids, quantity::parse_count(value)?),
        "disk" => (&mut quota.disk_bytes, quantity::parse_bytes(value)?),
        "log-rate" => (&mut quota.log_lines_per_second, quantity::parse_count(value)?),
        _ => {
            return Err(format!(
                "there is no resource {resource:?}; use cpu, memory, swap, pids, disk, io, egress, nofile or log-rate, such as web.memory=256M or web.cpu=500m"
            ));
        }
    };
    Ok((slot.get_or_insert_default(), amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Result<Vec<FormationChange>, String> {
        parse(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn several_changes_of_one_process_type_must_become_one() {
        let changes =
            parsed(&["web=3", "web.memory=256M", "web.memory.floor=64M", "web.cpu=0.5", "worker.log-rate=5"])
                .unwrap();
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[0].count, Some(3));
        assert_eq!(
            changes[0].quota.memory_bytes,
            Some(BoundsChange { floor: Some(64 << 20), max: Some(256 << 20) })
        );
        assert_eq!(changes[0].quota.cpu_millis, Some(BoundsChange { floor: None, max: Some(500) }));
        assert_eq!(changes[1].count, None);
        assert_eq!(changes[1].quota.log_lines_per_second, Some(BoundsChange { floor: None, max: Some(5) }));
    }

    #[test]
    fn amounts_without_floor_and_max_must_be_read_by_their_names() {
        let changes = parsed(&[
            "web.io=20M",
            "web.io.ops=500",
            "web.egress=10M/s",
            "web.nofile=4096",
            "web.cpu.burst=0.5",
            "web.memory.high=400M",
            "web.swap=1G",
            "web.memory=1G",
        ])
        .unwrap();
        let expected = QuotaChange {
            io_bytes_per_second: Some(20 << 20),
            io_operations_per_second: Some(500),
            egress_bytes_per_second: Some(10 << 20),
            open_files: Some(4_096),
            cpu_burst_millis: Some(500),
            memory_high_bytes: Some(400 << 20),
            swap_bytes: Some(1 << 30),
            memory_bytes: Some(BoundsChange { floor: None, max: Some(1 << 30) }),
            ..QuotaChange::default()
        };
        assert_eq!(changes[0].quota, expected);
    }

    #[test]
    fn a_bad_change_must_be_quoted_with_what_would_be_right() {
        for (text, hint) in [
            ("web", "such as web=3"),
            ("web=many", "whole number"),
            ("Web=1", "process type"),
            ("web.ram=1G", "use cpu, memory, swap"),
            ("web.memory=lots", "K, M, G or T"),
            ("web.cpu=half", "500m"),
            ("web.pids=1.5", "whole number"),
            ("web.memory.min=1M", "web.memory.floor=64M"),
            ("web.egress=fast", "K, M, G or T"),
        ] {
            let error = parsed(&[text]).unwrap_err();
            assert!(error.contains(text) && error.contains(hint), "{error}");
        }
    }
}

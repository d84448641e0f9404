//! `berth scale`: how many instances of each process type, and the quota of each instance.

use std::collections::BTreeMap;

use berth_wire::api::{BoundsChange, Change, Formation, FormationChange, QuotaChange};
use berth_wire::name::ProcessType;
use berth_wire::quota::Bounds;
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
            _ => {
                return Err(format!(
                    "{text:?}: a resource has a .floor and a .max, nothing else; write web.memory.floor=64M"
                ));
            }
        }
    }
    Ok(changes.into_values().collect())
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
                "there is no resource {resource:?}; use cpu, memory, pids, disk or log-rate, such as web.memory=256M or web.cpu=500m"
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
    fn a_bad_change_must_be_quoted_with_what_would_be_right() {
        for (text, hint) in [
            ("web", "such as web=3"),
            ("web=many", "whole number"),
            ("Web=1", "process type"),
            ("web.ram=1G", "use cpu, memory"),
            ("web.memory=lots", "K, M, G or T"),
            ("web.cpu=half", "500m"),
            ("web.pids=1.5", "whole number"),
            ("web.memory.min=1M", "web.memory.floor=64M"),
        ] {
            let error = parsed(&[text]).unwrap_err();
            assert!(error.contains(text) && error.contains(hint), "{error}");
        }
    }
}

//! `berth ps`: every instance, what it is doing and what it uses.

use berth_wire::api::Instance;
use berth_wire::report::{Exit as ProcessExit, InstanceSample};
use jiff::Timestamp;

use crate::failure::Failure;
use crate::quantity;
use crate::screen::{left, right};
use crate::session::Session;
use crate::settle::state_name;

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Also tell why each instance is where it is
    #[arg(short, long)]
    verbose: bool,
}

/// Runs it.
///
/// # Errors
/// As the API has it.
pub async fn run(session: &Session<'_>, arguments: &Arguments) -> Result<(), Failure> {
    let app = session.app()?;
    let instances: Vec<Instance> = session.client()?.get(&format!("/v1/apps/{app}/instances")).await?;
    session.screen.answer(&instances, |screen| {
        if instances.is_empty() {
            return screen
                .line(format!("No instances of {app}. Deploy it, or scale it up: berth scale web=1"));
        }
        let now = Timestamp::now();
        let columns = [
            left("NAME"),
            left("RELEASE"),
            left("STATE"),
            left("SINCE"),
            right("RESTARTS"),
            right("CPU TIME"),
            left("MEMORY"),
            left("HOST"),
        ];
        screen.table(&columns, instances.iter().map(|instance| row(instance, now)));
        for instance in &instances {
            for line in remarks(instance, arguments.verbose) {
                screen.line(format!("{}: {line}", instance.name));
            }
        }
    })
}

fn row(instance: &Instance, now: Timestamp) -> Vec<String> {
    let sample = instance.sample.as_ref();
    let cpu = sample.map_or_else(|| "-".into(), |s| format!("{:.1}s", s.cpu_usage_us as f64 / 1e6));
    let used = sample.map_or_else(|| "-".into(), used);
    vec![
        instance.name.clone(),
        format!("v{}", instance.release),
        state_name(instance),
        instance.since.map_or_else(|| "-".into(), |since| quantity::since(since, now)),
        instance.restarts.to_string(),
        cpu,
        format!("{used} / {}", quantity::bytes(instance.quota.memory_bytes.max)),
        instance.host_name.clone(),
    ]
}

/// Resident memory, and what of it is swapped out.
fn used(sample: &InstanceSample) -> String {
    let resident = quantity::bytes(sample.memory_working_set_bytes);
    match sample.memory_swap_bytes {
        0 => resident,
        swapped => format!("{resident} + {} swapped", quantity::bytes(swapped)),
    }
}

/// What a row has no room for: trouble with its last words, how it last ended, why it is there.
fn remarks(instance: &Instance, verbose: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(trouble) = &instance.trouble {
        lines.push(format!("{} {} (berth explain {})", trouble.code, trouble.message, trouble.code));
        lines.extend(trouble.log_tail.iter().map(|line| format!("  {line}")));
    }
    if let Some(exit) = instance.last_exit
        && (verbose || instance.trouble.is_some())
    {
        lines.push(format!("last {}", exit_text(exit)));
    }
    if verbose {
        lines.extend(instance.unenforced.iter().cloned());
    }
    if (verbose || instance.state.is_none()) && !instance.reason.is_empty() {
        lines.push(instance.reason.clone());
    }
    lines
}

fn exit_text(exit: ProcessExit) -> String {
    match exit {
        ProcessExit::Code(code) => format!("exited with status {code}"),
        ProcessExit::Signal(signal) => format!("was killed by signal {signal}"),
        ProcessExit::OutOfMemory => "was killed for its use of memory".into(),
        ProcessExit::TimedOut => "ran longer than it may".into(),
        ProcessExit::Unknown => "ended in a way that nobody saw".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_must_come_with_code_last_words_and_where_to_read_on() {
        let instance: Instance = serde_json::from_value(serde_json::json!({
            "id": uuid::Uuid::nil(), "name": "web.1", "release": 4, "host": uuid::Uuid::nil(), "host_name": "h1",
            "reason": "on h1: most free memory", "state": "backing_off", "since": null, "restarts": 3,
            "last_exit": {"code": 1}, "quota": {}, "sample": null,
            "trouble": {"code": "R16", "message": "Exited with status 1 after 0.2 s", "log_tail": ["no database"]},
        }))
        .unwrap();
        assert_eq!(
            remarks(&instance, false),
            [
                "R16 Exited with status 1 after 0.2 s (berth explain R16)",
                "  no database",
                "last exited with status 1"
            ]
        );
        assert!(remarks(&instance, true).contains(&"on h1: most free memory".to_owned()));
        let row = row(&instance, Timestamp::UNIX_EPOCH);
        assert_eq!(row[..4], ["web.1", "v4", "backing off", "-"].map(str::to_owned));
    }
}

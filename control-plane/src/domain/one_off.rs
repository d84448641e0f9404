//! Commands that people run: a one-off (`berth run`) is an instance of its own, from the release that serves; which instance a
//! command inside one (`berth exec`) means. Pure.

use std::collections::BTreeMap;

use berth_wire::api::{ARGUMENT_BYTES_MAX, QuotaChange, RunRequest};
use berth_wire::code::Code;
use berth_wire::id::InstanceId;
use berth_wire::name::{ConfigKey, ProcessType};
use berth_wire::quota::Quota;
use berth_wire::report::InstanceState;
use berth_wire::spec::{Attached, Desired, InstanceSpec, Work};

use super::app::AppRow;
use super::environment::{Which, spec_of};
use super::placed::Placed;
use super::release::{Content, Release};

/// The process type of one-offs, as in `run.1`.
pub const PROCESS: &str = "run";

/// The longest a one-off may run, in seconds: a day, as at Heroku.
pub const RUN_SECONDS_MAX: u32 = 24 * 3_600;

/// Most one-offs of one app at once: more is a script gone wild.
pub const AT_ONCE_MAX: usize = 50;

/// Longest command line that is shown in events and logs, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Why a command cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable code.
    pub code: Code,
    /// What is wrong and what to do.
    pub message: String,
}

fn refusal(code: Code, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}

/// Checks what was asked to be run, before anything is looked up.
///
/// # Errors
/// A13 or A18.
pub fn check(argv: &[String], env: &BTreeMap<ConfigKey, String>) -> Result<(), Refusal> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(refusal(Code::A13, "no command was given; write it after --, e.g. `-- bash`"));
    }
    if argv.iter().chain(env.values()).any(|text| text.contains('\0')) {
        return Err(refusal(
            Code::A13,
            "an argument or a variable has a NUL byte, which no program can be given",
        ));
    }
    let variables = env.iter().map(|(key, value)| key.as_str().len() + value.len());
    let bytes: usize = argv.iter().map(String::len).chain(variables).sum();
    if bytes > ARGUMENT_BYTES_MAX {
        let message = format!("arguments and variables have {bytes} bytes; at most {ARGUMENT_BYTES_MAX} fit");
        return Err(refusal(Code::A18, message));
    }
    Ok(())
}

/// The process type, which is valid.
pub fn process() -> Option<ProcessType> {
    PROCESS.parse().ok()
}

/// Whether somebody's `berth run` made it.
pub fn is_one_off(placed: &Placed) -> bool {
    matches!(placed.spec.work, Work::OneOff(_)) && placed.spec.process.as_str() == PROCESS
}

/// The quota of a one-off: what `web` has, as it has been sized for the same code, with what was asked to differ.
///
/// # Errors
/// A13: it cannot be.
pub fn quota(content: &Content, change: &QuotaChange) -> Result<Quota, Refusal> {
    let of_web = content.formation.get(&ProcessType::web()).map_or_else(Quota::default, |scale| scale.quota);
    let quota = change.apply(of_web);
    quota.check().map(|()| quota).map_err(|error| refusal(Code::A13, error.to_string()))
}

/// The number after `run.`: the first that no other has.
///
/// # Errors
/// A15: too many run already.
pub fn next_index(instances: &[Placed]) -> Result<u32, Refusal> {
    let taken: Vec<u32> = instances.iter().filter(|p| is_one_off(p)).map(|p| p.spec.index).collect();
    if taken.len() >= AT_ONCE_MAX {
        let message = format!("{AT_ONCE_MAX} one-offs of this app run already; `berth ps` shows them");
        return Err(refusal(Code::A15, message));
    }
    Ok((1..).find(|index| !taken.contains(index)).unwrap_or(1))
}

/// The instance that runs a one-off.
pub fn instance(
    app: &AppRow,
    release: &Release,
    request: &RunRequest,
    (id, index): (InstanceId, u32),
    quota: Quota,
) -> Option<InstanceSpec> {
    let process = process()?;
    let argv = match request.argv.as_slice() {
        [line] => super::command_line::argv(line),
        argv => argv.to_vec(),
    };
    let which = Which { app: &app.name, version: release.version, process: &process, index };
    let mut run = spec_of(&release.content, which, argv, RUN_SECONDS_MAX);
    run.env.extend(request.env.iter().map(|(key, value)| (key.as_str().to_owned(), value.clone())));
    run.attached = (!request.detach).then_some(Attached { terminal: request.terminal });
    Some(InstanceSpec {
        id,
        team: app.team,
        app: app.id,
        app_name: app.name.clone(),
        process,
        index,
        release: release.version,
        desired: Desired::Run,
        work: Work::OneOff(run),
        quota,
    })
}

/// The command for people, without its variables: `rails console`, cut to a line's length.
pub fn shown(argv: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word.clone() } else { format!("{word:?}") }
    };
    let line = argv.iter().map(quoted).collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN_CHARS_MAX {
        return line;
    }
    line.chars().take(SHOWN_CHARS_MAX - 1).chain(['…']).collect()
}

/// The instance that a command is to run in: of those of that name the newest, of a process type the first that runs, and
/// `web` before others if none was named.
///
/// # Errors
/// A12: there is none of that name. R25: there is, but it does not run.
pub fn choose<'a>(instances: &'a [Placed], named: Option<&str>) -> Result<&'a Placed, Refusal> {
    let is_build = |p: &Placed| matches!(p.spec.work, Work::Build(_));
    let matches = |p: &&Placed| {
        !is_build(p) && named.is_none_or(|named| p.spec.process.as_str() == named || p.name() == named)
    };
    let mut found: Vec<&Placed> = instances.iter().filter(matches).collect();
    let runs = |p: &&Placed| {
        let state = p.report.as_ref().map(|report| report.state);
        use InstanceState::{Draining, Healthy, Starting, Unhealthy};
        matches!(state, Some(Starting | Healthy | Unhealthy | Draining))
    };
    let Some(any) = found.first().copied() else {
        let what = named.map_or_else(|| "no instance".to_owned(), |named| format!("no instance {named:?}"));
        return Err(refusal(Code::A12, format!("the app has {what}; `berth ps` lists what it has")));
    };
    // One that is told to go is for those who name it.
    found.retain(|p| runs(p) && (p.runs() || named.is_some_and(|named| p.name() == named)));
    // Those that are to stay before those that are told to go; the newest of one name first.
    found.sort_by_key(|p| {
        (!p.runs(), !p.spec.process.is_web(), &p.spec.process, p.spec.index, std::cmp::Reverse(p.created_at))
    });
    found.first().copied().ok_or_else(|| {
        let message = format!("{} is not running; `berth ps` says why", any.name());
        refusal(Code::R25, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_cannot_be_run_must_be_refused() {
        let none = BTreeMap::new();
        for bad in [&[][..], &[""], &["a\0"]] {
            assert_eq!(check(&argv(bad), &none).unwrap_err().code, Code::A13, "{bad:?}");
        }
        let long = "x".repeat(ARGUMENT_BYTES_MAX);
        assert_eq!(check(&argv(&["a", &long]), &none).unwrap_err().code, Code::A18);
        let env = BTreeMap::from([("A".parse().unwrap(), "\0".to_owned())]);
        assert_eq!(check(&argv(&["a"]), &env).unwrap_err().code, Code::A13);
    }

    #[test]
    fn a_command_must_be_shown_on_one_short_line() {
        assert_eq!(shown(&argv(&["rake", "db:migrate", "A B", ""])), r#"rake db:migrate "A B" """#);
        let long = shown(&argv(&["echo", &"x\n".repeat(500)]));
        assert!(long.chars().count() == SHOWN_CHARS_MAX && !long.contains('\n'), "{long}");
    }

    #[test]
    fn an_app_without_instances_must_be_told_apart_from_one_that_is_down() {
        assert_eq!(choose(&[], Some("web.1")).unwrap_err().code, Code::A12);
        assert_eq!(next_index(&[]), Ok(1));
    }
}

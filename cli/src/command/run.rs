//! `berth run`: a command in a container of its own; attached, or detached with its output in the log.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use berth_wire::api::{BoundsChange, Instance, QuotaChange, RunRequest};
use berth_wire::attach::TerminalSize;
use berth_wire::name::ConfigKey;
use reqwest::Method;

use crate::attach::{self, Keyboard};
use crate::failure::{Exit, Failure};
use crate::quantity;
use crate::session::Session;

const NOTES: &str = "\
The command runs in a new container from the release that serves, with its config vars, for a day at most. Several words
are run as they are; a single one is a line for the shell, as in a Procfile:
  berth run rake db:migrate
  berth run 'rake db:migrate && rake db:seed'
  pg_dump … | berth run psql      standard input, output and error are passed on as they are
When the connection is lost, the command gets SIGHUP and is killed ten seconds later. What is to go on: --detach.

Exit status: the command's own; 128 + N if signal N ended it; 127 if it does not exist, 126 if it cannot be executed;
137 if it ran out of memory; 125 if Berth could not run it or lost it (--detach: as for other commands).";

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Arguments {
    /// Do not attach: come back at once; `berth logs --process run.1` has what it writes
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    terminal: Terminal,
    /// A variable for this run only, KEY=VALUE; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = variable)]
    env: Vec<(ConfigKey, String)>,
    /// Most CPU: 500m, 0.5 or 2; the quota of web if absent
    #[arg(long, value_parser = quantity::parse_cpu)]
    cpu: Option<u64>,
    /// Most memory, e.g. 1G
    #[arg(long, value_parser = quantity::parse_bytes)]
    memory: Option<u64>,
    /// Most processes and threads
    #[arg(long, value_parser = quantity::parse_count)]
    pids: Option<u64>,
    /// Most bytes written to its own root, e.g. 2G
    #[arg(long, value_parser = quantity::parse_bytes)]
    disk: Option<u64>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Whether the command gets a terminal.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Terminal {
    /// With a terminal; the default if standard input and output are one
    #[arg(short, long, conflicts_with = "no_tty")]
    tty: bool,
    /// Without a terminal
    #[arg(short = 'T', long)]
    no_tty: bool,
}

impl Terminal {
    /// The size of the terminal to ask for, if any.
    pub fn wanted(self) -> Option<TerminalSize> {
        let both = || std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        // What a terminal has had since the VT100, where there is none to ask.
        let usual = TerminalSize { rows: 24, columns: 80 };
        (self.tty || (!self.no_tty && both())).then(|| attach::size().unwrap_or(usual))
    }
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// A sentence.
pub fn variable(text: &str) -> Result<(ConfigKey, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.parse().map_err(|error| format!("{error}"))?, value.to_owned()))
}

/// The variables for a command; with a terminal, what kind it is.
pub fn variables(
    given: Vec<(ConfigKey, String)>,
    terminal: Option<TerminalSize>,
) -> BTreeMap<ConfigKey, String> {
    let mut all = BTreeMap::new();
    if terminal.is_some()
        && let (Ok(key), Ok(kind)) = ("TERM".parse(), std::env::var("TERM"))
    {
        all.insert(key, kind);
    }
    all.extend(given);
    all
}

/// Runs it; answers with what to exit with.
///
/// # Errors
/// As the API has it, or the command did not run.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<u8, Failure> {
    let detach = arguments.detach;
    let done = start(session, arguments).await;
    if detach { done } else { done.map_err(Failure::attached) }
}

async fn start(session: &Session<'_>, arguments: Arguments) -> Result<u8, Failure> {
    let (app, client) = (session.app()?, session.client()?);
    let terminal = if arguments.detach { None } else { arguments.terminal.wanted() };
    let most = |max: Option<u64>| max.map(|max| BoundsChange { floor: None, max: Some(max) });
    let asked = RunRequest {
        argv: arguments.command,
        env: variables(arguments.env, terminal),
        detach: arguments.detach,
        terminal,
        quota: QuotaChange {
            cpu_millis: most(arguments.cpu),
            memory_bytes: most(arguments.memory),
            pids: most(arguments.pids),
            disk_bytes: most(arguments.disk),
            ..QuotaChange::default()
        },
    };
    let path = format!("/v1/apps/{app}/run");
    if asked.detach {
        let instance: Instance = client.call(Method::POST, &path, &asked).await?;
        session.screen.answer(&instance, |screen| {
            screen.line(format!("{} runs; `berth logs -f --process {0}` follows it", instance.name));
        })?;
        return Ok(0);
    }
    let connection = client.upgrade(Method::POST, &path, &asked).await?;
    attach_to(connection, terminal.is_some()).await
}

/// Attaches this process's streams to a command's.
///
/// # Errors
/// The command did not run, or the connection was lost.
pub async fn attach_to(connection: reqwest::Upgraded, terminal: bool) -> Result<u8, Failure> {
    // With --tty and input from elsewhere there is nothing to make raw, and no key that could be lost.
    let keyboard = if terminal && std::io::stdin().is_terminal() {
        let taken = Keyboard::take();
        Some(taken.map_err(|error| {
            Failure::new(Exit::Attached, format!("the terminal could not be used: {error}; try --no-tty"))
        })?)
    } else {
        None
    };
    attach::attach(connection, keyboard.as_ref()).await
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn options_after_the_command_must_be_the_commands() {
        let parsed =
            Alone::try_parse_from(["run", "-e", "A=b=c", "ls", "-la", "--detach"]).unwrap().arguments;
        assert_eq!(parsed.command, ["ls", "-la", "--detach"]);
        assert!(!parsed.detach);
        assert_eq!(parsed.env[0].1, "b=c");
        assert_eq!(Alone::try_parse_from(["run", "--", "-x"]).unwrap().arguments.command, ["-x"]);
        assert!(Alone::try_parse_from(["run"]).is_err());
        assert!(Alone::try_parse_from(["run", "-e", "PORT=1", "ls"]).is_err());
    }
}

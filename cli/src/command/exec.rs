//! `berth exec`: a command inside a running instance, beside the app.

use berth_wire::api::ExecRequest;
use berth_wire::name::{AppName, ConfigKey};
use reqwest::Method;

use super::run::{Terminal, attach_to, variable, variables};
use crate::failure::Failure;
use crate::session::Session;

const NOTES: &str = "\
The command gets what the instance's own process has: user, environment, working directory, quota, and no more.
  berth exec -- ps aux                 in the first running web instance of the app that this folder deploys
  berth exec shop:web.2 -- bash        in web.2 of shop, with a terminal if this is one
When the connection is lost, the command gets SIGHUP and is killed ten seconds later. It ends with its instance.

Exit status: the command's own; 128 + N if signal N ended it; 127 if it does not exist, 126 if it cannot be executed;
125 if Berth could not run it or lost it.";

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Arguments {
    /// APP, APP:web.1, or web.1 of the app that this folder deploys
    #[arg(value_name = "TARGET", value_parser = target)]
    target: Option<Target>,
    #[command(flatten)]
    terminal: Terminal,
    /// A variable for this command only, KEY=VALUE; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = variable)]
    env: Vec<(ConfigKey, String)>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    app: Option<AppName>,
    instance: Option<String>,
}

/// An app's name has no dot, an instance's has one.
fn target(text: &str) -> Result<Target, String> {
    let app = |text: &str| text.parse::<AppName>().map_err(|error| error.to_string());
    Ok(match text.split_once(':') {
        Some((name, instance)) => Target { app: Some(app(name)?), instance: Some(instance.to_owned()) },
        None if text.contains('.') => Target { app: None, instance: Some(text.to_owned()) },
        None => Target { app: Some(app(text)?), instance: None },
    })
}

/// Runs it; answers with what to exit with.
///
/// # Errors
/// As the API has it, or the command did not run.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<u8, Failure> {
    start(session, arguments).await.map_err(Failure::attached)
}

async fn start(session: &Session<'_>, arguments: Arguments) -> Result<u8, Failure> {
    let target = arguments.target.unwrap_or(Target { app: None, instance: None });
    let app = target.app.map_or_else(|| session.app(), Ok)?;
    let client = session.client()?;
    let terminal = arguments.terminal.wanted();
    let asked = ExecRequest {
        instance: target.instance,
        argv: arguments.command,
        env: variables(arguments.env, terminal),
        terminal,
    };
    let connection = client.upgrade(Method::POST, &format!("/v1/apps/{app}/exec"), &asked).await?;
    attach_to(connection, terminal.is_some()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_must_be_an_app_an_instance_or_both() {
        let read = |text| target(text).map(|t| (t.app.map(|app| app.to_string()), t.instance));
        assert_eq!(read("shop"), Ok((Some("shop".into()), None)));
        assert_eq!(read("shop:web.1"), Ok((Some("shop".into()), Some("web.1".into()))));
        assert_eq!(read("web.1"), Ok((None, Some("web.1".into()))));
        assert!(read("Shop").is_err());
    }
}

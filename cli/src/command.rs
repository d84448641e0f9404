//! One command a file: its arguments and what it does. A command asks the API and shows the answer; it decides
//! nothing that the control plane should decide.

pub mod apps;
pub mod builds;
pub mod completions;
pub mod config;
pub mod deploy;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod explain;
pub mod git_credential;
pub mod hosts;
pub mod login;
pub mod logout;
pub mod logs;
pub mod ps;
pub mod releases;
pub mod restart;
pub mod rollback;
pub mod run;
pub mod scale;
pub mod stacks;
pub mod status;
pub mod tokens;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::screen::Screen;
use crate::session::Session;

/// Runs one command; answers with the exit status, which is not 0 only if that of another command is passed on.
///
/// # Errors
/// Whatever made it fail.
pub async fn run(screen: &Screen, arguments: Arguments) -> Result<u8, Failure> {
    // These work without a control plane.
    match &arguments.command {
        Command::Explain(explain) => return explain::run(screen, explain).map(|()| 0),
        Command::GitCredential(request) => return git_credential::run(request).map(|()| 0),
        Command::Completions(shell) => {
            completions::run(screen, shell);
            return Ok(0);
        }
        Command::Login(login) => return login::run(screen, login).await.map(|()| 0),
        _ => {}
    }
    let session = Session::new(screen, arguments.app)?;
    let done = match arguments.command {
        Command::Run(arguments) => return run::run(&session, arguments).await,
        Command::Exec(arguments) => return exec::run(&session, arguments).await,
        Command::Logout => logout::run(&session),
        Command::Status => status::run(&session).await,
        Command::Apps(arguments) => apps::run(&session, arguments).await,
        Command::Deploy(arguments) => deploy::run(&session, arguments).await,
        Command::Ps(arguments) => ps::run(&session, &arguments).await,
        Command::Scale(arguments) => scale::run(&session, arguments).await,
        Command::Config(arguments) => config::run(&session, arguments).await,
        Command::Releases(arguments) => releases::run(&session, arguments).await,
        Command::Rollback(arguments) => rollback::run(&session, arguments).await,
        Command::Restart(arguments) => restart::run(&session, &arguments).await,
        Command::Logs(arguments) => logs::run(&session, arguments).await,
        Command::Builds(arguments) => builds::run(&session, arguments).await,
        Command::Events(arguments) => events::run(&session, &arguments).await,
        Command::Hosts => hosts::run(&session).await,
        Command::Tokens(arguments) => tokens::run(&session, arguments).await,
        Command::Stacks(arguments) => stacks::run(&session, arguments).await,
        Command::Url => apps::url(&session).await,
        Command::Doctor => doctor::run(&session).await,
        Command::Completions(_) | Command::Explain(_) | Command::GitCredential(_) | Command::Login(_) => {
            Ok(())
        }
    };
    done.map(|()| 0)
}

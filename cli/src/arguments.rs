//! The command line's grammar as a whole. Each command's own arguments are beside what it does, in
//! [`crate::command`].

use berth_wire::name::AppName;
use clap::{Parser, Subcommand};

use crate::command::{
    apps, builds, completions, config, deploy, events, exec, explain, git_credential, login, logs, ps,
    releases, restart, rollback, run, scale, stacks, tokens,
};

const EXIT_STATUS: &str = "\
Exit status:
  0  it worked
  1  it did not, for a reason that is none of the others
  2  the command line is wrong
  3  the control plane could not be reached
  4  not signed in, or not allowed
  5  there is no such app, release, build, token or code
  6  the build failed, or the release did not come up
run and exec: the command's own, or 125 for all of these

Which app: --app, else BERTH_APP, else the git remote called berth.
Which control plane: BERTH_URL (with BERTH_TOKEN), else that of the git remote, else the last `berth login`.";

/// Deploy and run apps on Berth.
#[derive(Debug, Parser)]
#[command(name = "berth", version, after_help = EXIT_STATUS, max_term_width = 100, arg_required_else_help = true)]
pub struct Arguments {
    /// The app; found from BERTH_APP or the git remote `berth` otherwise.
    #[arg(short, long, global = true, env = "BERTH_APP", value_name = "NAME", hide_env_values = true)]
    pub app: Option<AppName>,
    /// Answer in JSON, in the shapes of the API.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a control plane with a token
    Login(login::Arguments),
    /// Sign out: forget the token
    Logout,
    /// Show where you are signed in, as whom, and how the app does
    Status,
    /// List, create, show and destroy apps
    Apps(apps::Arguments),
    /// Build and release a folder, without git
    Deploy(deploy::Arguments),
    /// Show the app's instances
    Ps(ps::Arguments),
    /// Show or change how many instances run, and their quota
    Scale(scale::Arguments),
    /// Show and change config vars
    Config(config::Arguments),
    /// List and show releases
    Releases(releases::Arguments),
    /// Make an earlier release the current one again
    Rollback(rollback::Arguments),
    /// Replace every instance by a new one, with no downtime
    Restart(restart::Arguments),
    /// Show what the app and the platform wrote
    Logs(logs::Arguments),
    /// Run a command in a container of its own
    Run(run::Arguments),
    /// Run a command inside a running instance
    Exec(exec::Arguments),
    /// List and show builds and their logs
    Builds(builds::Arguments),
    /// Show what happened to the app
    Events(events::Arguments),
    /// List the hosts
    Hosts,
    /// List, create and revoke API tokens
    Tokens(tokens::Arguments),
    /// List and import stack images
    Stacks(stacks::Arguments),
    /// Print the app's URL
    Url,
    /// Say what an error code means and what to do
    Explain(explain::Arguments),
    /// Check this machine, the connection and the hosts
    Doctor,
    /// Print what a shell needs to complete commands: bash, zsh, fish
    Completions(completions::Arguments),
    /// Answers git when it asks for a password (set up by login)
    #[command(hide = true)]
    GitCredential(git_credential::Arguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_grammar_must_be_consistent() {
        super::Arguments::command().debug_assert();
    }
}

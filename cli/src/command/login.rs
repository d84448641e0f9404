//! `berth login`: verifies a token, keeps it, and lets git use it.

use std::io::{self, BufRead as _, IsTerminal as _};

use berth_wire::api::Account;

use crate::client::Client;
use crate::credentials::{self, Credentials, Server, server_key};
use crate::failure::{Exit, Failure};
use crate::git;
use crate::screen::Screen;
use crate::session::parse_url;

/// Arguments of `login`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The control plane, http://HOST:PORT; BERTH_URL or the last one if left out
    pub url: Option<String>,
    /// The token. Other users of this machine can see a command line: better leave this out and be asked, or
    /// give the token on standard input
    #[arg(long, env = "BERTH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Runs it.
///
/// # Errors
/// The control plane cannot be reached or refuses the token; the token cannot be kept.
pub async fn run(screen: &Screen, arguments: &Arguments) -> Result<(), Failure> {
    let path = credentials::path()?;
    let mut stored = Credentials::load(&path)?;
    let variable = std::env::var("BERTH_URL").ok().filter(|url| !url.is_empty());
    let url = arguments
        .url
        .clone()
        .or(variable)
        .or_else(|| stored.current.clone())
        .ok_or_else(|| Failure::usage("Which control plane? Write `berth login http://HOST:PORT`"))?;
    let url = parse_url(&url)?;
    let server = server_key(&url);
    let token = match &arguments.token {
        Some(token) => token.clone(),
        None => ask(&server)?,
    };
    let token = token.trim().to_owned();
    if token.is_empty() {
        return Err(Failure::usage("No token was given; whoever runs the control plane makes one"));
    }
    let account: Account = Client::new(url, Some(token.clone()))?.get("/v1/account").await?;
    stored.servers.insert(server.clone(), Server { token });
    stored.current = Some(server.clone());
    stored.save(&path)?;
    let helper = git::install_credential_helper(&server);
    screen.answer(&account, |screen| {
        screen.line(format!(
            "Signed in to {server} (team {}, token {}).",
            account.team_name, account.token_name
        ));
        match helper {
            Ok(()) => screen.line("git pushes to it use this token from now on."),
            Err(failure) => screen.note(format!(
                "git was not told about the token and will ask for a password when you push: {}",
                failure.message
            )),
        }
    })
}

/// From the terminal without echo, or the first line of standard input.
fn ask(server: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::local("reading the token", error);
    if io::stdin().is_terminal() {
        eprint!("Token for {server}: ");
        return console::Term::stderr().read_secure_line().map_err(failed);
    }
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line).map_err(failed)? {
        0 => Err(Failure::new(Exit::Usage, "No token on standard input")),
        _ => Ok(line),
    }
}

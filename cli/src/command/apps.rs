//! `berth apps` and `berth url`: list, create, show and destroy.

use std::io::{self, IsTerminal as _};

use berth_wire::api::{App, NewApp};
use berth_wire::name::AppName;
use reqwest::Method;

use crate::failure::Failure;
use crate::screen::left;
use crate::session::Session;
use crate::{git, quantity};

/// Arguments of `apps`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the apps (the default)
    List,
    /// Create an app, and the git remote `berth` in this repository
    Create {
        /// Its name: 1 to 40 of a-z, 0-9 and -
        name: AppName,
        /// Leave the repository's remotes alone
        #[arg(long)]
        no_remote: bool,
    },
    /// Show one app
    Info {
        /// Which; found as everywhere if left out
        name: Option<AppName>,
    },
    /// Destroy an app with its releases, builds and logs
    #[command(visible_alias = "delete")]
    Destroy {
        /// Which; found as everywhere if left out
        name: Option<AppName>,
        /// The name again, instead of being asked for it
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
}

/// Runs it.
///
/// # Errors
/// As the API has it.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    match arguments.verb.unwrap_or(Verb::List) {
        Verb::List => list(session).await,
        Verb::Create { name, no_remote } => create(session, name, no_remote).await,
        Verb::Info { name } => info(session, name).await,
        Verb::Destroy { name, confirm } => destroy(session, name, confirm).await,
    }
}

/// `berth url`: prints the address, for `$(berth url)`.
///
/// # Errors
/// As the API has it.
pub async fn url(session: &Session<'_>) -> Result<(), Failure> {
    let app: App = session.client()?.get(&format!("/v1/apps/{}", session.app()?)).await?;
    session.screen.answer(&serde_json::json!({ "web_url": app.web_url }), |screen| screen.line(&app.web_url))
}

/// The release that serves and the one on its way.
pub fn release_text(app: &App) -> String {
    match (app.release, app.rolling) {
        (Some(now), Some(next)) => format!("v{now}, v{next} on its way"),
        (Some(now), None) => format!("v{now}"),
        (None, Some(next)) => format!("none, v{next} on its way"),
        (None, None) => "none yet".to_owned(),
    }
}

async fn list(session: &Session<'_>) -> Result<(), Failure> {
    let apps: Vec<App> = session.client()?.get("/v1/apps").await?;
    let columns = [left("NAME"), left("RELEASE"), left("CREATED"), left("WEB")];
    session.screen.list(&apps, "No apps yet. Make one: berth apps create NAME", &columns, |app, now| {
        let created = quantity::ago(app.created_at, now);
        vec![app.name.to_string(), release_text(app), created, app.web_url.clone()]
    })
}

async fn create(session: &Session<'_>, name: AppName, no_remote: bool) -> Result<(), Failure> {
    let app: App = session.client()?.call(Method::POST, "/v1/apps", &NewApp { name }).await?;
    let remote = (!no_remote && git::in_repository()).then(|| git::set_remote(&app.git_url));
    session.screen.answer(&app, |screen| {
        screen.line(format!("Created {}.", app.name));
        screen.line(format!("  web  {}", app.web_url));
        let with_remote = matches!(remote, Some(Ok(())));
        let note = if with_remote { format!(" (remote \"{}\")", git::REMOTE) } else { String::new() };
        screen.line(format!("  git  {}{note}", app.git_url));
        if let Some(Err(failure)) = remote {
            screen.note(format!("the git remote was not set: {}", failure.message));
        }
    })
}

async fn info(session: &Session<'_>, name: Option<AppName>) -> Result<(), Failure> {
    let name = name.map_or_else(|| session.app(), Ok)?;
    let app: App = session.client()?.get(&format!("/v1/apps/{name}")).await?;
    session.screen.answer(&app, |screen| {
        let domains: Vec<&str> = app.domains.iter().map(|domain| domain.as_str()).collect();
        for (key, value) in [
            ("Name", app.name.to_string()),
            ("Created", app.created_at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()),
            ("Release", release_text(&app)),
            ("Web", app.web_url.clone()),
            ("Git", app.git_url.clone()),
            ("Domains", domains.join(", ")),
            ("Id", app.id.to_string()),
        ] {
            screen.line(format!("{key:<9}{value}"));
        }
    })
}

async fn destroy(
    session: &Session<'_>,
    name: Option<AppName>,
    confirm: Option<String>,
) -> Result<(), Failure> {
    let name = name.map_or_else(|| session.app(), Ok)?;
    let client = session.client()?;
    let app: App = client.get(&format!("/v1/apps/{name}")).await?;
    let confirmed = match confirm {
        Some(text) => text,
        None if io::stdin().is_terminal() => {
            eprint!("This destroys {name} with its releases, builds and logs. Type its name: ");
            let mut text = String::new();
            io::stdin().read_line(&mut text).map_err(|e| Failure::local("reading the name", e))?;
            text.trim().to_owned()
        }
        None => {
            return Err(Failure::usage(format!("Nothing was destroyed: confirm with --confirm {name}")));
        }
    };
    if confirmed != name.as_str() {
        return Err(Failure::usage(format!("Nothing was destroyed: {confirmed:?} is not {name}")));
    }
    client.delete(&format!("/v1/apps/{name}")).await?;
    git::remove_remote(&app.git_url);
    session.screen.answer(&app, |screen| screen.line(format!("Destroyed {name}.")))
}

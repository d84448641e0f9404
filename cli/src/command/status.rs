//! `berth status`: where you are signed in, as whom, and how the app of this folder does.

use berth_wire::api::{Account, App};
use serde::Serialize;

use crate::credentials::server_key;
use crate::failure::{Exit, Failure};
use crate::session::Session;

/// The JSON answer.
#[derive(Serialize)]
struct Status {
    server: String,
    account: Account,
    app: Option<App>,
}

/// Runs it.
///
/// # Errors
/// Not signed in, or not reachable.
pub async fn run(session: &Session<'_>) -> Result<(), Failure> {
    let client = session.client()?;
    let account: Account = client.get("/v1/account").await?;
    let app = match session.app() {
        Ok(name) => match client.get::<App>(&format!("/v1/apps/{name}")).await {
            Ok(app) => Some(app),
            Err(failure) if failure.exit == Exit::NotFound => None,
            Err(failure) => return Err(failure),
        },
        Err(_) => None,
    };
    let status = Status { server: server_key(client.base()), account, app };
    session.screen.answer(&status, |screen| {
        let Status { server, account, app } = &status;
        let mut rows = vec![
            ("Control plane", server.clone()),
            ("Version", account.server_version.clone()),
            ("Team", account.team_name.clone()),
            ("Token", account.token_name.clone()),
        ];
        if let Some(app) = app {
            rows.push(("App", app.name.to_string()));
            rows.push(("Web", app.web_url.clone()));
            rows.push(("Release", super::apps::release_text(app)));
        }
        for (name, value) in rows {
            screen.line(format!("{name:<15}{value}"));
        }
    })
}

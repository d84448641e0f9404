//! `berth restart`: every instance is replaced by a new one, by the same contract as a release.

use berth_wire::api::Change;
use reqwest::Method;

use crate::failure::Failure;
use crate::session::Session;
use crate::settle;

/// Arguments of `restart`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Come back once the change is accepted
    #[arg(long)]
    no_wait: bool,
}

/// Runs it.
///
/// # Errors
/// As the API has it, or the new instances do not come up.
pub async fn run(session: &Session<'_>, arguments: &Arguments) -> Result<(), Failure> {
    let (app, client) = (session.app()?, session.client()?);
    let request = client.request(Method::POST, &format!("/v1/apps/{app}/restart"))?;
    let change: Change = client.json(client.send(request).await?).await?;
    settle::finish(session.screen, &client, &app, change, arguments.no_wait).await
}

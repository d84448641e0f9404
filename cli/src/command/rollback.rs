//! `berth rollback`: a new release with what an earlier one had.

use berth_wire::api::{Change, Rollback};
use reqwest::Method;

use crate::failure::Failure;
use crate::session::Session;
use crate::settle;

/// Arguments of `rollback`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// To which release: v5 or 5; the last one that served before the current if left out
    #[arg(value_parser = super::releases::parse_version)]
    version: Option<u64>,
    /// Come back once the change is accepted
    #[arg(long)]
    no_wait: bool,
}

/// Runs it.
///
/// # Errors
/// As the API has it, or the release does not come up.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    let (app, client) = (session.app()?, session.client()?);
    let body = Rollback { version: arguments.version };
    let change: Change = client.call(Method::POST, &format!("/v1/apps/{app}/rollback"), &body).await?;
    settle::finish(session.screen, &client, &app, change, arguments.no_wait).await
}

//! `berth events`: what happened to the app, oldest first as in a log.

use berth_wire::api::Event;

use crate::failure::Failure;
use crate::screen::left;
use crate::session::Session;

/// As many as the control plane keeps of an app.
const KEPT_MAX: usize = 1_000;

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many of the newest
    #[arg(short, long, default_value_t = 50)]
    number: usize,
}

/// Runs it.
///
/// # Errors
/// As the API has it.
pub async fn run(session: &Session<'_>, arguments: &Arguments) -> Result<(), Failure> {
    let app = session.app()?;
    let path = format!("/v1/apps/{app}/events?limit={}", arguments.number.clamp(1, KEPT_MAX));
    let mut events: Vec<Event> = session.client()?.get(&path).await?;
    events.truncate(arguments.number);
    let columns = [left("WHEN"), left("PROCESS"), left("CODE"), left("WHAT")];
    if !session.screen.is_json() {
        events.reverse();
    }
    let empty = format!("Nothing has happened to {app} yet.");
    session.screen.list(&events, empty, &columns, |event, _| {
        let code = event.code.map_or_else(|| "-".into(), |code| code.to_string());
        let at = event.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        vec![at, event.process.clone(), code, event.message.clone()]
    })
}

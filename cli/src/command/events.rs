//! `berth events`: what happened to the app, oldest first as in a log.

use berth_wire::api::Event;

use crate::failure::Failure;
use crate::screen::left;
use crate::session::Session;

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
    let mut events: Vec<Event> = session.client()?.get(&format!("/v1/apps/{app}/events")).await?;
    events.truncate(arguments.number);
    session.screen.answer(&events, |screen| {
        if events.is_empty() {
            return screen.line(format!("Nothing has happened to {app} yet."));
        }
        screen.table(
            &[left("WHEN"), left("PROCESS"), left("CODE"), left("WHAT")],
            events.iter().rev().map(|event| {
                let code = event.code.map_or_else(|| "-".into(), |code| code.to_string());
                let at = event.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
                vec![at, event.process.clone(), code, event.message.clone()]
            }),
        );
    })
}

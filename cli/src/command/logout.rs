//! `berth logout`: forgets the token and takes the credential helper off. The token itself stays valid until it
//! is revoked (`berth tokens revoke`).

use crate::credentials::{self, Credentials, server_key};
use crate::failure::Failure;
use crate::git;
use crate::session::Session;

/// Runs it.
///
/// # Errors
/// The credentials cannot be written.
pub fn run(session: &Session<'_>) -> Result<(), Failure> {
    let (url, _) = session.server()?;
    let server = server_key(&url);
    let path = credentials::path()?;
    let mut stored = Credentials::load(&path)?;
    let was_there = stored.servers.remove(&server).is_some();
    if stored.current.as_deref() == Some(&server) {
        stored.current = stored.servers.keys().next().cloned();
    }
    stored.save(&path)?;
    git::remove_credential_helper(&server);
    session.screen.answer(&serde_json::json!({ "server": server, "was_signed_in": was_there }), |screen| {
        screen.line(format!("Signed out of {server}."));
    })
}

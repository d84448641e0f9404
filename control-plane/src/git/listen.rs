//! The server of the private socket: one conversation per hook.

use std::time::Duration;

use berth_wire::code::Code;
use tokio::net::{UnixListener, UnixStream};

use super::protocol::Stage;
use super::talk::{Talk, TalkError};
use super::{build, release};
use crate::app::App;

/// Serves hooks for ever.
pub async fn serve(app: App, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(app.clone(), stream));
            }
            Err(error) => {
                // Out of descriptors: some will be free again soon.
                tracing::error!(%error, "could not accept a git hook");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn converse(app: App, stream: UnixStream) {
    let mut talk = Talk::new(stream);
    if let Err(error) = answer(&app, &mut talk).await {
        match error {
            // The pusher hung up.
            TalkError::Io(error) => tracing::info!(%error, "a git hook went away"),
            other => {
                tracing::error!(error = %other, "a push failed");
                let words = "Berth failed in the middle of this push; its log says why. Push again.";
                let _ = talk.refuse(Code::A99, words).await;
            }
        }
    }
}

async fn answer(app: &App, talk: &mut Talk) -> Result<(), TalkError> {
    let hello = talk.hello().await?;
    let Some(push) = app.git.pushes.find(hello.push, &hello.secret) else {
        return talk.refuse(Code::A11, "this is not a push that Berth began").await;
    };
    match hello.stage {
        Stage::PreReceive => build::pre_receive(app, &push, &hello.updates, talk).await,
        Stage::PostReceive => release::post_receive(app, &push, talk).await,
    }
}

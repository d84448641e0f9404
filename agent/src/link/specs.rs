//! Asks for specs that are newer than the ledger's and hands them to it.

use std::sync::Arc;

use berth_wire::spec::Spec;
use reqwest::{Method, StatusCode};

use super::client::{BackOff, Link, LinkError, WAIT};
use crate::ledger::{Accepted, Ledger, SPEC_BYTES_MAX};

/// Asks for ever.
pub async fn follow(link: Link, ledger: Arc<Ledger>) -> std::convert::Infallible {
    let mut back_off = BackOff::default();
    loop {
        match ask(&link, &ledger).await {
            Ok(answered) => {
                if back_off.reset() {
                    tracing::info!("the control plane answers again");
                }
                // One that was not accepted would be answered again at once: wait as after a failure.
                if !answered {
                    tokio::time::sleep(back_off.next(0.0)).await;
                }
            }
            Err(error) => back_off.pause(&error).await,
        }
    }
}

/// One long poll. False if a spec came that was not accepted.
async fn ask(link: &Link, ledger: &Arc<Ledger>) -> Result<bool, LinkError> {
    let mut request = link.request(Method::GET, "spec");
    if let Some(spec) = ledger.current() {
        let (epoch, after) = (spec.generation.epoch, spec.generation.number);
        request = request.query(&[("epoch", epoch), ("after", after), ("wait", WAIT.as_secs())]);
    }
    let answer = link.send("GET spec", request).await?;
    if answer.status() == StatusCode::NO_CONTENT {
        return Ok(true);
    }
    let spec: Spec = link.json("GET spec", answer, SPEC_BYTES_MAX).await?;
    let (generation, ledger) = (spec.generation, ledger.clone());
    match tokio::task::spawn_blocking(move || ledger.accept(spec)).await {
        Ok(Ok(Accepted::New)) => {
            tracing::info!(epoch = generation.epoch, number = generation.number, "accepted a spec");
            Ok(true)
        }
        Ok(Ok(Accepted::Repeated)) => Ok(false),
        Ok(Err(error)) => {
            tracing::error!(%error, "did not accept a spec");
            Ok(false)
        }
        Err(error) => {
            tracing::error!(%error, "accepting a spec was cut off");
            Ok(false)
        }
    }
}

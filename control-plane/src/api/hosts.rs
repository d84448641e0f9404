//! Hosts: what they are, what is reserved on them, and their own metrics through the control plane, for those that
//! Prometheus cannot reach.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use berth_wire::api::{Host, Problem};
use berth_wire::code::Code;
use berth_wire::id::HostId;
use berth_wire::session::SessionRequest;
use http::header::CONTENT_TYPE;

use super::extract::Path;
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::store::{hosts, instances};

/// How long a host may take to answer: Prometheus gives up after ten seconds by default.
const METRICS_WITHIN: Duration = Duration::from_secs(9);

/// Most bytes of one host's metrics: 1,000 instances of about 40 lines of 100 bytes are 4 MB.
const METRICS_BYTES_MAX: usize = 16 << 20;

/// Every host.
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts", responses((status = 200, body = [Host])))]
pub async fn list(State(app): State<App>, _: ApiCaller) -> Result<axum::Json<Vec<Host>>, ApiError> {
    let mut conn = app.store.read().await?;
    let placed = instances::list_all(&app.store, &mut conn).await?;
    let now = app.clock.now();
    let mut all = Vec::new();
    for host in hosts::list(&mut conn).await? {
        let here = || placed.iter().filter(|p| p.host == host.id);
        all.push(Host {
            up: host.is_up(now),
            cpu_millis_reserved: here().map(|p| p.spec.quota.cpu_millis.floor).sum(),
            memory_bytes_reserved: here().map(|p| p.spec.quota.memory_bytes.floor).sum(),
            instances: here().count() as u64,
            id: host.id,
            name: host.name.clone(),
            seen_at: host.seen_at,
            facts: host.facts.clone(),
        });
    }
    Ok(axum::Json(all))
}

/// A host's metrics, fetched from its agent now.
#[utoipa::path(get, path = "/v1/hosts/{id}/metrics", tag = "hosts", params(("id" = String, Path)),
    responses((status = 200, content_type = "text/plain"), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub async fn metrics(
    State(app): State<App>,
    _: ApiCaller,
    Path(id): Path<HostId>,
) -> Result<Response, ApiError> {
    let host = hosts::find(&mut *app.store.read().await?, id).await?;
    let host = host.ok_or_else(|| ApiError::new(Code::A12, format!("there is no host {id}")))?;
    let mut stream = app
        .sessions
        .open(id, SessionRequest::Metrics)
        .map_err(|e| ApiError::new(Code::A19, e.to_string()))?;
    let collect = async {
        let mut text = Vec::new();
        while let Some(chunk) = stream.next().await {
            text.extend_from_slice(&chunk);
            if text.len() > METRICS_BYTES_MAX {
                return None;
            }
        }
        Some(text)
    };
    match tokio::time::timeout(METRICS_WITHIN, collect).await {
        Ok(Some(text)) => Ok(([(CONTENT_TYPE, crate::metrics::CONTENT)], Body::from(text)).into_response()),
        Ok(None) => Err(ApiError::new(Code::A18, format!("the metrics of {} are too large", host.name))),
        Err(_) => Err(ApiError::new(
            Code::A19,
            format!(
                "{} did not answer within {} s; `berth hosts` says when it was last seen",
                host.name,
                METRICS_WITHIN.as_secs()
            ),
        )),
    }
}

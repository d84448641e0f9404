//! What a host that builds needs: the source tree, and a place for the output. A host sees only the builds that were
//! placed on it.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::id::{BuildId, HostId};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use tokio_util::io::ReaderStream;

use crate::access::HostCaller;
use crate::api::extract::{Path, Query};
use crate::api::problem::ApiError;
use crate::app::App;
use crate::build_logs::Appended;
use crate::store::instances;

pub async fn source(
    State(app): State<App>,
    HostCaller(host): HostCaller,
    Path(digest): Path<Digest>,
) -> Result<Response, ApiError> {
    let unknown = || ApiError::new(Code::A12, format!("no build on this host has the source {digest}"));
    if !instances::has_source(&mut *app.store.read().await?, host, &digest).await? {
        return Err(unknown());
    }
    let opened = app.blobs.open_blob(&digest).await.map_err(|error| ApiError::internal(&error))?;
    let (file, size) = opened.ok_or_else(unknown)?;
    let headers =
        [(header::CONTENT_TYPE, "application/x-tar".to_owned()), (header::CONTENT_LENGTH, size.to_string())];
    Ok((headers, Body::from_stream(ReaderStream::with_capacity(file, 128 << 10))).into_response())
}

#[derive(Debug, Deserialize)]
pub struct At {
    offset: u64,
}

pub async fn log(
    State(app): State<App>,
    HostCaller(host): HostCaller,
    Path(build): Path<BuildId>,
    Query(At { offset }): Query<At>,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    if !is_placed(&app, host, build).await? {
        return Err(ApiError::new(Code::A12, format!("the build {build} is not on this host")));
    }
    let appended =
        app.build_logs.append(build, offset, &bytes).await.map_err(|error| ApiError::internal(&error))?;
    let (status, length) = match appended {
        Appended::Stored(length) => (StatusCode::OK, length),
        Appended::Gap(length) => (StatusCode::CONFLICT, length),
    };
    app.wakes.changed();
    Ok((status, Json(json!({ "length": length }))).into_response())
}

async fn is_placed(app: &App, host: HostId, build: BuildId) -> Result<bool, ApiError> {
    Ok(instances::has_build(&mut *app.store.read().await?, host, build).await?)
}

//! Uploads: a source tree without git (`berth deploy .`) and a build's output as text.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use berth_wire::api::{Build, BuildStatus, Problem};
use berth_wire::code::Code;
use berth_wire::id::{AppId, BuildId};
use berth_wire::name::AppName;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{StatusCode, header};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::extract::{Path, Query, find_app};
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::intake::{Intake, IntakeError, Wanted, queue_build};
use crate::store::builds;

/// Looked at again after so long even if nobody woke us.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Refused(code, sentence) => Self::new(code, sentence),
            IntakeError::Store(error) => error.into(),
            IntakeError::Blob(error) if error.is_disk_full() => Self::new(
                Code::D13,
                "the control plane's disk is full: nothing was changed. Free some space there",
            ),
            IntakeError::Blob(error) => Self::internal(&error),
        }
    }
}

/// Builds an uploaded source tree, an uncompressed tar; if it succeeds, it becomes a release by itself.
#[utoipa::path(post, path = "/v1/apps/{app}/builds", tag = "builds", params(("app" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 201, body = Build), (status = 404, body = Problem), (status = 413, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn upload(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
    request: Request,
) -> Result<(StatusCode, axum::Json<Build>), ApiError> {
    let row = find_app(&mut *app.store.read().await?, &caller, &name).await?;
    let mut intake = Intake::begin(&app).await?;
    let mut body = request.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| {
            ApiError::new(Code::A13, "the upload was cut off; nothing was built, send it again")
        })?;
        intake.write(&chunk).await?;
    }
    let source = intake.finish().await?;
    let wanted = Wanted { app: row.id, source, commit: None, by: &caller.name, releases: true };
    let build = queue_build(&app, wanted).await?;
    Ok((StatusCode::CREATED, axum::Json(build.to_wire())))
}

/// Whether to go on until the build has ended.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Follow {
    /// Go on until the build has ended.
    #[serde(default)]
    follow: bool,
}

/// A build's output.
#[utoipa::path(get, path = "/v1/apps/{app}/builds/{id}/log", tag = "builds",
    params(("app" = String, Path), ("id" = String, Path), Follow),
    responses((status = 200, content_type = "text/plain"), (status = 404, body = Problem)))]
pub async fn output(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path((name, id)): Path<(AppName, BuildId)>,
    Query(Follow { follow }): Query<Follow>,
) -> Result<Response, ApiError> {
    let mut conn = app.store.read().await?;
    let row = find_app(&mut conn, &caller, &name).await?;
    builds::find(&mut conn, row.id, id).await?.ok_or_else(|| {
        ApiError::new(Code::A12, format!("{name} has no build {id}; `berth builds` lists them"))
    })?;
    drop(conn);
    let (sender, chunks) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = send_output(&app, row.id, id, follow, &sender).await {
            tracing::error!(%error, build = %id, "build output could not be read");
            // An error ends the response without its end, so that a client does not take it for whole.
            let _ = sender.send(Err(std::io::Error::other("the build's output could not be read"))).await;
        }
    });
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(ReceiverStream::new(chunks))).into_response())
}

async fn send_output(
    app: &App,
    owner: AppId,
    id: BuildId,
    follow: bool,
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut changed = app.wakes.watch();
    let mut offset = 0;
    loop {
        // The state first: what is ended has written all its output.
        let build = builds::find(&mut *app.store.read().await?, owner, id).await?;
        let open =
            build.is_some_and(|build| matches!(build.status, BuildStatus::Queued | BuildStatus::Running));
        loop {
            let chunk = app.build_logs.read(id, offset).await?;
            if chunk.is_empty() {
                break;
            }
            offset += chunk.len() as u64;
            if sender.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
        }
        if !open || !follow {
            return Ok(());
        }
        tokio::select! {
            _ = timeout(LOOK_AGAIN, changed.changed()) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

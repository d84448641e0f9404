//! Commands that people run: a one-off in a container of its own, and a command inside a running instance. Both are
//! attached over an upgraded connection (see [`crate::attach`]); who ran what is said in the log and in the app's events.

use axum::extract::{FromRequest as _, Request, State};
use axum::response::{IntoResponse as _, Response};
use berth_wire::api::{Event, ExecRequest, Instance, Problem, RunRequest};
use berth_wire::code::Code;
use berth_wire::id::{HostId, InstanceId};
use berth_wire::name::AppName;
use berth_wire::session::SessionRequest;
use berth_wire::spec::Desired;
use http::{HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::extract::{Json, Path, find_app};
use super::instances::to_wire;
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::attach::{accept, relay, upgrade_of};
use crate::domain::app::AppRow;
use crate::domain::one_off::{self, Refusal};
use crate::domain::placed::Placed;
use crate::domain::release::Release;
use crate::plan::place::Room;
use crate::store::{StoreError, events, hosts, instances, releases};

/// Tells the client which instance it is attached to.
const INSTANCE: HeaderName = HeaderName::from_static("berth-instance");

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

/// Runs a command in a container of its own, from the release that serves.
#[utoipa::path(post, path = "/v1/apps/{app}/run", tag = "run", operation_id = "start", params(("app" = String, Path)),
    request_body = RunRequest, responses(
        (status = 101, description = "Attached: the connection now carries berth-attach-1; the header Berth-Instance names the instance"),
        (status = 201, body = Instance, description = "Detached"),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem),
        (status = 503, body = Problem)))]
pub async fn run(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let upgrade = upgrade_of(&mut request);
    let Json(asked) = Json::<RunRequest>::from_request(request, &app).await?;
    one_off::check(&asked.argv, &asked.env)?;
    let mut tx = app.store.begin().await?;
    let row = find_app(&mut tx, &caller, &name).await?;
    let upgrade = if asked.detach { None } else { Some(upgrade?) };
    let release = release_to_run(&app, &mut tx, &row).await?;
    let placed = place(&app, &mut tx, &row, &release, &asked).await?;
    let how = if asked.detach { "detached" } else { "attached" };
    let command = one_off::shown(&asked.argv);
    let message = format!("{} runs `{command}` ({how})", caller.name);
    say(&app, &mut tx, &row, &placed.name(), message).await?;
    tx.commit().await.map_err(StoreError::from)?;
    tracing::info!(app = %name, instance = %placed.name(), by = %caller.name, command, how, "a one-off was started");
    app.wakes.plan();
    match upgrade {
        None => {
            let host = hosts::find(&mut *app.store.read().await?, placed.host).await?;
            let shown = to_wire(&app, placed, host.map(|host| host.name).unwrap_or_default());
            Ok((StatusCode::CREATED, axum::Json(shown)).into_response())
        }
        Some(upgrade) => attach(&app, &placed, upgrade).await,
    }
}

/// The one that serves; before the first does, the newest there is.
async fn release_to_run(app: &App, conn: &mut SqliteConnection, row: &AppRow) -> Result<Release, ApiError> {
    let live = releases::list_live_of(&app.store, conn, row.id).await?;
    let current = live.into_iter().rev().find(|r| r.status == berth_wire::api::ReleaseStatus::Current);
    let release = match current {
        Some(release) => Some(release),
        None => releases::head_find(&app.store, conn, row.id).await?,
    };
    release.ok_or_else(|| {
        let detail =
            format!("{} has no release yet, so there is no image to run; push something first", row.name);
        ApiError::new(Code::A16, detail)
    })
}

async fn place(
    app: &App,
    conn: &mut SqliteConnection,
    row: &AppRow,
    release: &Release,
    asked: &RunRequest,
) -> Result<Placed, ApiError> {
    let now = app.clock.now();
    let quota = one_off::quota(&release.content, &asked.quota)?;
    let all = instances::list_all(&app.store, conn).await?;
    let own: Vec<Placed> = all.iter().filter(|p| p.spec.app == row.id).cloned().collect();
    let id = InstanceId(Uuid::now_v7());
    let number = (id, one_off::next_index(&own)?);
    let spec = one_off::instance(row, release, asked, number, quota)
        .ok_or_else(|| ApiError::internal(&"the process type of one-offs is not valid"))?;
    let mut room = Room::new(&hosts::list(conn).await?, all.iter(), now);
    let (host, reason) = room
        .place(row.id, &spec.process, &quota)
        .map_err(|trouble| ApiError::new(trouble.code, trouble.message.trim_start_matches("waits: ")))?;
    let placed = Placed {
        spec,
        host,
        fingerprint: format!("run:{id}"),
        release: release.version,
        build: None,
        reason,
        created_at: now,
        report: None,
    };
    instances::insert(&app.store, conn, &placed).await?;
    Ok(placed)
}

async fn say(
    app: &App,
    conn: &mut SqliteConnection,
    row: &AppRow,
    process: &str,
    message: String,
) -> Result<(), ApiError> {
    let event = Event { at: app.clock.now(), process: process.to_owned(), code: None, message };
    Ok(events::insert(conn, row.id, &event).await?)
}

/// Attaches the client. Once it is gone, for whatever reason, nobody can be attached again: the instance is to end.
async fn attach(app: &App, placed: &Placed, client: OnUpgrade) -> Result<Response, ApiError> {
    let id = placed.spec.id;
    let session = match app.sessions.open_duplex(placed.host, SessionRequest::Attach { instance: id }) {
        Ok(session) => session,
        Err(error) => {
            end(app, id).await;
            return Err(ApiError::new(Code::A15, error.to_string()));
        }
    };
    let app = app.clone();
    tokio::spawn(async move {
        relay(client, session).await;
        end(&app, id).await;
    });
    Ok(accepted(placed))
}

fn accepted(placed: &Placed) -> Response {
    let mut response = accept();
    if let Ok(name) = HeaderValue::try_from(placed.name()) {
        response.headers_mut().insert(INSTANCE, name);
    }
    response
}

async fn end(app: &App, id: InstanceId) {
    let ended = async {
        let mut tx = app.store.begin().await?;
        instances::desired_update(&mut tx, id, Desired::Drain, "nobody is attached any more").await?;
        Ok::<_, StoreError>(tx.commit().await?)
    };
    if let Err(error) = ended.await {
        tracing::error!(%error, instance = %id, "a one-off could not be told to end; its agent ends it");
    }
    app.wakes.plan();
}

/// Runs a command inside a running instance.
#[utoipa::path(post, path = "/v1/apps/{app}/exec", tag = "exec", operation_id = "start", params(("app" = String, Path)),
    request_body = ExecRequest, responses(
        (status = 101, description = "The connection now carries berth-attach-1; the header Berth-Instance names the instance"),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn exec(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<AppName>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let upgrade = upgrade_of(&mut request);
    let Json(asked) = Json::<ExecRequest>::from_request(request, &app).await?;
    one_off::check(&asked.argv, &asked.env)?;
    let mut tx = app.store.begin().await?;
    let row = find_app(&mut tx, &caller, &name).await?;
    let upgrade = upgrade?;
    let all = instances::list(&app.store, &mut tx, row.id).await?;
    let placed = one_off::choose(&all, asked.instance.as_deref())?;
    let command = one_off::shown(&asked.argv);
    say(&app, &mut tx, &row, &placed.name(), format!("{} runs `{command}` in it", caller.name)).await?;
    tx.commit().await.map_err(StoreError::from)?;
    app.wakes.changed();
    tracing::info!(app = %name, instance = %placed.name(), by = %caller.name, command, "a command runs in an instance");
    let env = asked.env.into_iter().map(|(key, value)| (String::from(key), value)).collect();
    let request =
        SessionRequest::Exec { instance: placed.spec.id, argv: asked.argv, env, terminal: asked.terminal };
    let session = open(&app, placed.host, request)?;
    tokio::spawn(relay(upgrade, session));
    Ok(accepted(placed))
}

fn open(
    app: &App,
    host: HostId,
    request: SessionRequest,
) -> Result<crate::sessions::DuplexSession, ApiError> {
    app.sessions.open_duplex(host, request).map_err(|error| ApiError::new(Code::A15, error.to_string()))
}

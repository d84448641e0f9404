//! `berth deploy .`: a folder goes up as a tar, the build's log comes down, the release is awaited.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use berth_wire::api::{Build, BuildStatus};
use berth_wire::code::Code;
use berth_wire::id::BuildId;
use berth_wire::name::AppName;
use berth_wire::terminal::OutputLines;
use futures_util::StreamExt as _;
use reqwest::{Body, Method};
use tokio::sync::{mpsc, oneshot};

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::screen::Screen;
use crate::session::Session;
use crate::{settle, source};

/// The tar goes up in pieces of this size; at most [`PIECES_MAX`] of them wait: 1 MiB.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES_MAX: usize = 16;
/// Pause between two looks at a build whose log has ended but whose result is not yet known.
const LOOK_PAUSE: Duration = Duration::from_millis(300);
/// Most of those looks: a minute.
const LOOKS_MAX: usize = 200;
/// Most looks at a build that is queued: half an hour; then its log is followed, which waits on.
const QUEUED_LOOKS_MAX: usize = 6_000;

/// Arguments of `deploy`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder; what .gitignore and .berthignore name stays at home
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Come back once the build has succeeded, without waiting for the release
    #[arg(long)]
    no_wait: bool,
}

/// Runs it.
///
/// # Errors
/// The folder cannot be read, the build fails, or the release does not come up.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    let (screen, client, app) = (session.screen, session.client()?, session.app()?);
    let build = upload(screen, &client, &app, arguments.folder).await?;
    started(screen, &client, &app, build.id).await?;
    follow_log(screen, &client, &app, build.id).await?;
    let build = settled(&client, &app, build.id).await?;
    if build.status == BuildStatus::Failed {
        return Err(Failure::release("The build failed", build.trouble));
    }
    match build.release {
        Some(version) if !arguments.no_wait => {
            let release = settle::settle(screen, &client, &app, version).await?;
            screen.answer(&release, |screen| screen.line(settle::live(&release)))
        }
        _ => screen.answer(&build, |screen| screen.line("The build succeeded; the release is on its way.")),
    }
}

async fn upload(screen: &Screen, client: &Client, app: &AppName, folder: PathBuf) -> Result<Build, Failure> {
    if !folder.is_dir() {
        return Err(Failure::usage(format!("{} is not a folder", folder.display())));
    }
    let unreadable = |error: io::Error| Failure::local(format!("reading {}", folder.display()), error);
    let files = source::files(&folder).map_err(unreadable)?;
    if files.is_empty() {
        let message =
            format!("{} holds no file that is not ignored; there is nothing to build", folder.display());
        return Err(Failure::new(Exit::Failed, message).with_code(Code::B11));
    }
    let spinner = screen.spinner(format!("Sending {} files of {}", files.len(), folder.display()));
    let (body, mut error) = tar_body(folder.clone(), files);
    let request = client
        .request(Method::POST, &format!("/v1/apps/{app}/builds"))?
        .header(reqwest::header::CONTENT_TYPE, "application/x-tar")
        .body(body);
    let answer = client.send(request).await;
    spinner.finish_and_clear();
    match (answer, error.try_recv()) {
        // A file that could not be read breaks the request off: that, and not the break, is what went wrong.
        (Err(_), Ok(error)) => Err(unreadable(error)),
        (answer, _) => client.json(answer?).await,
    }
}

/// A thread reads the files while the request sends them. It is never waited for: a refused request leaves it blocked
/// until its receiver is dropped, at the latest with the process.
fn tar_body(folder: PathBuf, files: Vec<PathBuf>) -> (Body, oneshot::Receiver<io::Error>) {
    let (sender, receiver) = mpsc::channel::<io::Result<Vec<u8>>>(PIECES_MAX);
    let (failed, error) = oneshot::channel();
    std::thread::spawn(move || {
        let pieces = io::BufWriter::with_capacity(PIECE_BYTES, Pieces(sender.clone()));
        match source::write_tar(&folder, &files, pieces) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = failed.send(error);
                // Breaks the request off, so that half a folder is not built.
                let _ = sender.blocking_send(Err(io::Error::other("a file could not be read")));
            }
            _ => {}
        }
    });
    let body = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    (Body::wrap_stream(body), error)
}

/// Hands what is written to the request's body.
struct Pieces(mpsc::Sender<io::Result<Vec<u8>>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.blocking_send(Ok(bytes.to_vec())).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until a host is at the build, and says what it waits for whenever that changes.
async fn started(screen: &Screen, client: &Client, app: &AppName, id: BuildId) -> Result<(), Failure> {
    let spinner = screen.spinner("Waiting for a host");
    let mut said = None;
    for _ in 0..QUEUED_LOOKS_MAX {
        let build: Build = client.get(&format!("/v1/apps/{app}/builds/{id}")).await?;
        if build.status != BuildStatus::Queued {
            break;
        }
        if build.trouble != said {
            said = build.trouble;
            if let Some(trouble) = &said {
                spinner.suspend(|| screen.line(format!("Waiting: {} [{}]", trouble.message, trouble.code)));
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    spinner.finish_and_clear();
    Ok(())
}

/// Prints a build's log until it ends, line by line: of a tool's progress only the last state is shown.
pub async fn follow_log(
    screen: &Screen,
    client: &Client,
    app: &AppName,
    build: BuildId,
) -> Result<(), Failure> {
    let path = format!("/v1/apps/{app}/builds/{build}/log?follow=true");
    let mut pieces = client.send(client.request(Method::GET, &path)?).await?.bytes_stream();
    let mut lines = OutputLines::default();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| client.unreachable(&error))?;
        lines.feed(&piece).iter().for_each(|line| screen.output_line(line));
    }
    lines.rest().iter().for_each(|line| screen.output_line(line));
    Ok(())
}

/// The build once it is over and, if it succeeded, once its release is known.
async fn settled(client: &Client, app: &AppName, id: BuildId) -> Result<Build, Failure> {
    for _ in 0..LOOKS_MAX {
        let build: Build = client.get(&format!("/v1/apps/{app}/builds/{id}")).await?;
        match build.status {
            BuildStatus::Failed => return Ok(build),
            BuildStatus::Succeeded if build.release.is_some() => return Ok(build),
            _ => tokio::time::sleep(LOOK_PAUSE).await,
        }
    }
    Err(Failure::new(
        Exit::Failed,
        format!("The log of build {id} ended, but not the build; look with `berth builds info {id}`"),
    ))
}

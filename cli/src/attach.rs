//! Being attached to a command: this process's standard streams on one side, frames (`berth_wire::attach`) on the other. With a
//! terminal everything typed goes to the command as it is, Ctrl-C too; without one the three streams stay apart, whatever
//! bytes they carry, and signals are passed on.

mod keyboard;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use berth_wire::attach::{
    AttachFailure, Decoder, Frame, PING_SECONDS, SILENCE_SECONDS_MAX, STDIN_WINDOW_BYTES,
};
use berth_wire::code::Code;
use berth_wire::report::Exit as Ending;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::failure::{Exit, Failure};

pub use keyboard::{Keyboard, size};

/// Bytes read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Frames on their way out; input has its own bound besides, its credit.
const FRAMES_MAX: usize = 32;
/// What a program that writes to a closed pipe ends with: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;
/// As timeout(1) has it.
const TIMED_OUT: u8 = 124;

/// Stays attached until the command ends; answers with what to exit with. With a keyboard there is a terminal on both sides.
///
/// # Errors
/// The command did not run, or the connection was lost.
pub async fn attach<C>(connection: C, keyboard: Option<&Keyboard>) -> Result<u8, Failure>
where
    C: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(connection);
    let (sender, frames) = mpsc::channel(FRAMES_MAX);
    let _writer = AbortOnDropHandle::new(tokio::spawn(write_frames(write, frames)));
    let (credit, started) = (Arc::new(Semaphore::new(STDIN_WINDOW_BYTES)), Arc::new(Notify::new()));
    let _typing =
        AbortOnDropHandle::new(tokio::spawn(read_input(sender.clone(), credit.clone(), started.clone())));
    tokio::select! {
        done = follow(read, &credit, &started) => done,
        status = signals::pass_on(&sender, keyboard.is_some()) => Ok(status),
    }
}

async fn write_frames(mut to: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) {
    loop {
        let frame = match tokio::time::timeout(Duration::from_secs(PING_SECONDS), frames.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(_) => Frame::Ping,
        };
        // A broken connection is noticed by whoever reads.
        if to.write_all(&frame.encode()).await.is_err() {
            return;
        }
    }
}

/// Sends what is read, once the command has started and as far as its credit goes.
async fn read_input(to: mpsc::Sender<Frame>, credit: Arc<Semaphore>, started: Arc<Notify>) {
    started.notified().await;
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = input.read(&mut buffer).await {
        let Ok(permits) = credit.acquire_many(count as u32).await else { return };
        permits.forget();
        if to.send(Frame::Stdin(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
    let _ = to.send(Frame::StdinEnd).await;
}

/// Writes what comes until the command ends.
async fn follow(
    mut from: impl AsyncRead + Unpin,
    credit: &Semaphore,
    started: &Notify,
) -> Result<u8, Failure> {
    let (mut output, mut complaints) = (tokio::io::stdout(), tokio::io::stderr());
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let heard = tokio::time::timeout(Duration::from_secs(SILENCE_SECONDS_MAX), from.read(&mut buffer));
        match heard.await {
            Ok(Ok(count @ 1..)) => decoder.push(&buffer[..count]),
            Ok(Ok(_)) => return Err(lost("it was closed")),
            Ok(Err(error)) => return Err(lost(&error.to_string())),
            Err(_) => return Err(lost(&format!("nothing was heard for {SILENCE_SECONDS_MAX} s"))),
        }
        loop {
            let written = match decoder.next_frame().map_err(|error| lost(&error.to_string()))? {
                None => break,
                Some(Frame::Stdout(bytes)) => write_now(&mut output, &bytes).await,
                Some(Frame::Stderr(bytes)) => write_now(&mut complaints, &bytes).await,
                Some(Frame::Credit(bytes)) => {
                    credit.add_permits((bytes as usize).min(STDIN_WINDOW_BYTES));
                    Ok(())
                }
                Some(Frame::Started) => {
                    started.notify_one();
                    Ok(())
                }
                Some(Frame::Exited(exit)) => return status_of(exit),
                Some(Frame::Failed(failure)) => return Err(failed(failure)),
                Some(_) => Ok(()),
            };
            // Whoever read our output has gone: so do we, and the command hears of it.
            if written.is_err() {
                return Ok(BROKEN_PIPE);
            }
        }
    }
}

async fn write_now(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// A shell's: the command's own status, or 128 and the signal that ended it.
fn status_of(exit: Ending) -> Result<u8, Failure> {
    let said = |code, message: &str| Failure::new(Exit::Attached, message).with_code(code);
    match exit {
        Ending::Code(code) => Ok(code),
        Ending::Signal(signal) => Ok(128_u8.saturating_add(signal)),
        Ending::OutOfMemory => {
            Err(said(Code::R14, "The container ran out of memory and was ended").with_status(137))
        }
        Ending::TimedOut => Err(said(Code::R23, "The command ran longer than it may").with_status(TIMED_OUT)),
        Ending::Unknown => {
            Err(said(Code::R27, "The command ended while the platform restarted; how is not known"))
        }
    }
}

fn failed(failure: AttachFailure) -> Failure {
    let shown = Failure::new(Exit::Attached, failure.message).with_code(failure.code);
    match failure.status {
        Some(status) => shown.with_status(status),
        None => shown,
    }
}

fn lost(why: &str) -> Failure {
    let message = format!(
        "The connection to the command was lost: {why}. The command gets SIGHUP, unless it has ended"
    );
    Failure::new(Exit::Attached, message).with_code(Code::R27)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_end_must_become_the_exit_status_a_shell_would_have() {
        assert_eq!(status_of(Ending::Code(7)), Ok(7));
        assert_eq!(status_of(Ending::Signal(15)), Ok(143));
        assert_eq!(status_of(Ending::OutOfMemory).unwrap_err().status, Some(137));
    }

    #[test]
    fn a_command_that_is_not_there_must_be_told_apart_from_a_failure_of_berths() {
        let failure = AttachFailure { code: Code::R19, message: "x: not found".into(), status: Some(127) };
        assert_eq!(failed(failure).status, Some(127));
        assert_eq!(lost("it was closed").status, None);
    }
}

//! Moves bytes between a command's streams and a connection, both ways at once. Nothing in here is without bound: output waits
//! for the connection, input for its credit (`STDIN_WINDOW_BYTES`), and a connection that is silent is lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_wire::attach::{
    Decoder, Frame, PING_SECONDS, SILENCE_SECONDS_MAX, STDIN_WINDOW_BYTES, TerminalSize,
};
use berth_wire::report::Exit;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Streams;
use crate::launch::Terminal;

/// Frames of output on their way: with the pieces below, half a mebibyte of a slow reader's.
const FRAMES_MAX: usize = 32;
/// Bytes read from a command at once.
const PIECE_BYTES: usize = 16 * 1024;
/// After a command has ended, a process that it left behind may hold its streams open. What is silent for this long is over.
const REST_SILENT: Duration = Duration::from_millis(500);
/// And however busy it is, this is the end.
const REST_MAX: Duration = Duration::from_secs(10);
/// What a terminal takes for the end of input (termios(3), VEOF).
const END_OF_TRANSMISSION: u8 = 4;

/// The command.
pub trait Target: Sync {
    /// Sends it a signal.
    fn signal(&self, number: u8) -> impl Future<Output = ()> + Send;
    /// Completes when it has ended.
    fn ended(&self) -> impl Future<Output = Exit> + Send;
}

/// How it came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The command ended, and the other side was told.
    Exited(Exit),
    /// The connection is lost; the command may still run.
    Lost,
}

/// Frames on their way out. Cheap to clone; the connection is closed when the last one is dropped.
pub type Outgoing = mpsc::Sender<Frame>;

/// Splits a connection: a task that writes what is sent, and the half to read from.
pub fn split<C>(connection: C) -> (tokio::io::ReadHalf<C>, Outgoing, AbortOnDropHandle<()>)
where
    C: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(connection);
    let (sender, frames) = mpsc::channel(FRAMES_MAX);
    (read, sender, AbortOnDropHandle::new(tokio::spawn(write_frames(write, frames))))
}

async fn write_frames(mut to: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) {
    loop {
        let frame = match tokio::time::timeout(Duration::from_secs(PING_SECONDS), frames.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(_) => Frame::Ping,
        };
        if to.write_all(&frame.encode()).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Pumps until the end.
pub async fn pump(
    read: impl AsyncRead + Unpin,
    outgoing: Outgoing,
    streams: Streams,
    target: &impl Target,
) -> Ending {
    let (stdin, queue) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let mut outputs = JoinSet::new();
    let mut sink = Sink { terminal: None, stdin: Some(stdin), waiting: waiting.clone() };
    // Ends with this function, and with it the command's input.
    let _input = AbortOnDropHandle::new(match streams {
        Streams::Pipes { stdin, stdout, stderr } => {
            outputs.spawn(send_pipe(stdout, outgoing.clone(), Frame::Stdout));
            outputs.spawn(send_pipe(stderr, outgoing.clone(), Frame::Stderr));
            tokio::spawn(feed(Input::Pipe(stdin), queue, waiting, outgoing.clone()))
        }
        Streams::Terminal(terminal) => {
            let terminal = Arc::new(terminal);
            outputs.spawn(send_terminal(terminal.clone(), outgoing.clone()));
            sink.terminal = Some(terminal.clone());
            tokio::spawn(feed(Input::Terminal(terminal), queue, waiting, outgoing.clone()))
        }
    });
    let mut incoming = std::pin::pin!(receive(read, sink, target));
    let exit = tokio::select! {
        exit = target.ended() => exit,
        () = &mut incoming => return Ending::Lost,
    };
    tokio::select! {
        () = rest(&mut outputs, &outgoing) => {}
        () = &mut incoming => return Ending::Lost,
    }
    match outgoing.send(Frame::Exited(exit)).await {
        Ok(()) => Ending::Exited(exit),
        Err(_) => Ending::Lost,
    }
}

/// The rest of the output.
async fn rest(outputs: &mut JoinSet<()>, outgoing: &Outgoing) {
    let all = async {
        loop {
            let before = outgoing.capacity();
            match tokio::time::timeout(REST_SILENT, outputs.join_next()).await {
                Ok(Some(_)) => {}
                Ok(None) => return,
                // Silent and nothing on its way; a slow reader is no silence.
                Err(_) if before == FRAMES_MAX && outgoing.capacity() == FRAMES_MAX => return,
                Err(_) => {}
            }
        }
    };
    let _ = tokio::time::timeout(REST_MAX, all).await;
}

async fn send_pipe(mut from: pipe::Receiver, to: Outgoing, frame: fn(Vec<u8>) -> Frame) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.send(frame(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn send_terminal(from: Arc<Terminal>, to: Outgoing) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.send(Frame::Stdout(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

/// Where a command's input goes.
enum Input {
    Pipe(pipe::Sender),
    Terminal(Arc<Terminal>),
}

/// Writes what was received, piece by piece, and gives credit for it. A command that has closed its input takes nothing, but
/// whoever sends must not wait for it.
async fn feed(
    mut input: Input,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    outgoing: Outgoing,
) {
    let mut open = true;
    while let Some(bytes) = queue.recv().await {
        if open {
            open = write_all(&mut input, &bytes).await.is_ok();
        }
        waiting.fetch_sub(bytes.len(), Ordering::AcqRel);
        if outgoing.send(Frame::Credit(bytes.len() as u32)).await.is_err() {
            return;
        }
    }
    if let Input::Terminal(_) = input {
        let _ = write_all(&mut input, &[END_OF_TRANSMISSION]).await;
    }
}

async fn write_all(input: &mut Input, mut bytes: &[u8]) -> io::Result<()> {
    match input {
        Input::Pipe(pipe) => pipe.write_all(bytes).await,
        Input::Terminal(terminal) => {
            while !bytes.is_empty() {
                bytes = &bytes[terminal.write(bytes).await?..];
            }
            Ok(())
        }
    }
}

/// What frames from the other side change.
struct Sink {
    terminal: Option<Arc<Terminal>>,
    stdin: Option<mpsc::UnboundedSender<Vec<u8>>>,
    waiting: Arc<AtomicUsize>,
}

impl Sink {
    /// False if the other side does not keep to the window: it would have us hold any amount.
    fn stdin(&self, bytes: Vec<u8>) -> bool {
        if self.waiting.fetch_add(bytes.len(), Ordering::AcqRel) + bytes.len() > STDIN_WINDOW_BYTES {
            return false;
        }
        if let Some(stdin) = &self.stdin {
            // Nobody takes it only when the other side is gone.
            let _ = stdin.send(bytes);
        }
        true
    }

    fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal
            && let Err(error) = terminal.resize(size)
        {
            tracing::debug!(%error, "a terminal could not be given another size");
        }
    }
}

/// Reads until the connection is lost: it ended, is malformed, or silent for too long.
async fn receive(mut from: impl AsyncRead + Unpin, mut sink: Sink, target: &impl Target) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let heard = tokio::time::timeout(Duration::from_secs(SILENCE_SECONDS_MAX), from.read(&mut buffer));
        let Ok(Ok(count @ 1..)) = heard.await else { return };
        decoder.push(&buffer[..count]);
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some(Frame::Stdin(bytes))) => {
                    if !sink.stdin(bytes) {
                        tracing::debug!("a command's connection is given up: more input than was credited");
                        return;
                    }
                }
                Ok(Some(Frame::StdinEnd)) => sink.stdin = None,
                Ok(Some(Frame::Resize(size))) => sink.resize(size),
                Ok(Some(Frame::Signal(number))) => target.signal(number).await,
                Ok(Some(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "a command's connection is given up");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use tokio::io::DuplexStream;
    use tokio::sync::watch;

    use super::*;
    use crate::launch::{InnerPipes, pipes};

    struct Played(watch::Receiver<Option<Exit>>, mpsc::UnboundedSender<u8>);

    impl Target for Played {
        async fn signal(&self, number: u8) {
            self.1.send(number).unwrap();
        }

        async fn ended(&self) -> Exit {
            self.0.clone().wait_for(Option::is_some).await.unwrap().unwrap()
        }
    }

    struct Bench {
        client: DuplexStream,
        decoder: Decoder,
        inner: InnerPipes,
        exit: watch::Sender<Option<Exit>>,
        signals: mpsc::UnboundedReceiver<u8>,
        pumping: tokio::task::JoinHandle<Ending>,
    }

    fn bench() -> Bench {
        let (client, agent) = tokio::io::duplex(4_096);
        let (outer, inner) = pipes().unwrap();
        let (exit, ended) = watch::channel(None);
        let (sender, signals) = mpsc::unbounded_channel();
        let pumping = tokio::spawn(async move {
            let (read, outgoing, writer) = split(agent);
            let streams = Streams::of_pipes(outer).unwrap();
            let ending = pump(read, outgoing, streams, &Played(ended, sender)).await;
            writer.await.unwrap();
            ending
        });
        Bench { client, decoder: Decoder::default(), inner, exit, signals, pumping }
    }

    impl Bench {
        async fn send(&mut self, frame: Frame) {
            self.client.write_all(&frame.encode()).await.unwrap();
        }

        async fn next(&mut self) -> Frame {
            let mut buffer = [0; 1_024];
            loop {
                match self.decoder.next_frame().unwrap() {
                    Some(Frame::Ping) | None => {}
                    Some(frame) => return frame,
                }
                let count = self.client.read(&mut buffer).await.unwrap();
                assert!(count > 0, "the connection ended");
                self.decoder.push(&buffer[..count]);
            }
        }
    }

    fn write(fd: &OwnedFd, text: &str) {
        rustix::io::write(fd, text.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn output_must_arrive_before_the_exit_and_apart() {
        let mut bench = bench();
        write(&bench.inner.stdout, "out");
        assert_eq!(bench.next().await, Frame::Stdout(b"out".to_vec()));
        write(&bench.inner.stderr, "err");
        assert_eq!(bench.next().await, Frame::Stderr(b"err".to_vec()));
        write(&bench.inner.stdout, "last");
        bench.exit.send_replace(Some(Exit::Code(3)));
        assert_eq!(bench.next().await, Frame::Stdout(b"last".to_vec()));
        // A process that was left behind holds the streams: that must not hold up the end for long.
        assert_eq!(bench.next().await, Frame::Exited(Exit::Code(3)));
        assert_eq!(bench.pumping.await.unwrap(), Ending::Exited(Exit::Code(3)));
    }

    #[tokio::test]
    async fn input_must_be_credited_and_its_end_passed_on() {
        let mut bench = bench();
        bench.send(Frame::Stdin(b"in".to_vec())).await;
        assert_eq!(bench.next().await, Frame::Credit(2));
        bench.send(Frame::StdinEnd).await;
        let mut stdin = pipe::Receiver::from_owned_fd(bench.inner.stdin.try_clone().unwrap()).unwrap();
        let mut read = Vec::new();
        stdin.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"in");
    }

    #[tokio::test]
    async fn a_signal_must_pass_input_that_is_not_read() {
        let mut bench = bench();
        // A pipe holds 64 KiB: the second piece is stuck.
        for _ in 0..2 {
            bench.send(Frame::Stdin(vec![7; 60 * 1024])).await;
        }
        bench.send(Frame::Signal(2)).await;
        assert_eq!(bench.signals.recv().await, Some(2));
    }

    #[tokio::test]
    async fn more_input_than_the_window_must_end_the_connection() {
        let mut bench = bench();
        for _ in 0..6 {
            let _ = bench.client.write_all(&Frame::Stdin(vec![7; 60 * 1024]).encode()).await;
        }
        assert_eq!(bench.pumping.await.unwrap(), Ending::Lost);
    }

    #[tokio::test]
    async fn a_client_that_is_gone_must_be_noticed() {
        let bench = bench();
        drop(bench.client);
        assert_eq!(bench.pumping.await.unwrap(), Ending::Lost);
    }
}

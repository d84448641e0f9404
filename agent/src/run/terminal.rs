//! A terminal for the command, joined to the one that `berth-agent run` itself has: keys go in as they are, what is shown comes
//! out, and a change of size is passed on.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_wire::attach::TerminalSize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::task::AbortOnDropHandle;

use crate::container::Output;
use crate::launch::{Keyboard, Terminal, own_terminal_size, receive_terminal, terminal_socket};

/// What a terminal has had since the VT100, where there is none to ask.
const USUAL: TerminalSize = TerminalSize { rows: 24, columns: 80 };
/// Bytes moved at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Where the terminal will come out.
pub(super) struct Ordered(OwnedFd);

/// A terminal of this one's size, for the command.
pub(super) fn order() -> io::Result<(Ordered, Output)> {
    let (outer, socket) = terminal_socket()?;
    Ok((Ordered(outer), Output::Terminal { socket, size: own_terminal_size().unwrap_or(USUAL) }))
}

/// Both terminals, joined.
pub(super) struct Joined {
    terminal: Arc<Terminal>,
    shown: AbortOnDropHandle<()>,
    _typed: AbortOnDropHandle<()>,
    _keyboard: Option<Keyboard>,
}

impl Ordered {
    /// Joins them; the command runs already.
    pub(super) fn join(self) -> io::Result<Joined> {
        let terminal = Arc::new(receive_terminal(&self.0)?);
        Ok(Joined {
            // Input from elsewhere than a terminal has nothing to be made raw.
            _keyboard: Keyboard::take().ok(),
            shown: AbortOnDropHandle::new(tokio::spawn(show(terminal.clone()))),
            _typed: AbortOnDropHandle::new(tokio::spawn(type_in(terminal.clone()))),
            terminal,
        })
    }
}

impl Joined {
    /// Passes a new size on.
    pub(super) fn resize(&self) {
        if let Some(size) = own_terminal_size() {
            // The command sees the old size then, and nothing else is wrong.
            let _ = self.terminal.resize(size);
        }
    }

    /// Waits until the rest is shown.
    pub(super) async fn finish(self) {
        let Self { shown, .. } = self;
        let _ = tokio::time::timeout(super::REST_MAX, shown).await;
    }
}

async fn show(terminal: Arc<Terminal>) {
    let mut output = tokio::io::stdout();
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = terminal.read(&mut buffer).await {
        if output.write_all(&buffer[..count]).await.is_err() || output.flush().await.is_err() {
            return;
        }
    }
}

async fn type_in(terminal: Arc<Terminal>) {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = input.read(&mut buffer).await {
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            match terminal.write(rest).await {
                Ok(count) => rest = &rest[count..],
                Err(_) => return,
            }
        }
    }
}

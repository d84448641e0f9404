//! This machine's own terminal while a command inside a container has it (`berth-agent run --tty`): raw, and as it was before in
//! any case once that is over.

use std::io;

use berth_wire::attach::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Keeps the terminal raw while it lives.
pub struct Keyboard(Termios);

impl Keyboard {
    /// Takes the terminal that is standard input.
    ///
    /// # Errors
    /// It is none.
    pub fn take() -> io::Result<Self> {
        let input = rustix::stdio::stdin();
        let before = tcgetattr(input)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(input, OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The size of the terminal that is standard output.
pub fn own_terminal_size() -> Option<TerminalSize> {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

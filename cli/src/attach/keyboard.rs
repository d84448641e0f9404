//! This machine's terminal while a command elsewhere has it: raw, and as it was before in any case once that is over: when the
//! guard is dropped, be it by a panic or because a signal ended the attachment.

use berth_wire::attach::TerminalSize;

/// Puts the terminal into raw mode while it lives.
#[cfg(unix)]
pub struct Keyboard(rustix::termios::Termios);

#[cfg(unix)]
impl Keyboard {
    /// Takes the terminal that is standard input.
    ///
    /// # Errors
    /// It is none.
    pub fn take() -> std::io::Result<Self> {
        use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
        let input = rustix::stdio::stdin();
        let before = tcgetattr(input)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(input, OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

#[cfg(unix)]
impl Drop for Keyboard {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The size of the terminal that is shown on; none if there is none.
#[cfg(unix)]
pub fn size() -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Where terminals work otherwise, commands get pipes.
#[cfg(not(unix))]
pub enum Keyboard {}

#[cfg(not(unix))]
impl Keyboard {
    /// Always refused.
    ///
    /// # Errors
    /// Not supported here.
    pub fn take() -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// None.
#[cfg(not(unix))]
pub fn size() -> Option<TerminalSize> {
    None
}

//! Commands that somebody is attached to: their standard streams on one side, the upgraded connection of a session on the other.
//! How a command is started is in `container/`; what the frames look like in `berth_wire::attach`.
//!
//! | module | |
//! |---|---|
//! | [`attachments`] | one-offs between their start and the session that comes for their streams |
//! | [`pump`] | moves bytes both ways until the command ends or the connection is lost |
//! | [`commands`] | what each kind of session does |
//!
//! Whoever is attached owns the command: when the connection is lost it gets SIGHUP and, [`HANGUP_GRACE`] later, SIGKILL.

pub mod attachments;
pub mod commands;
pub mod pump;

use std::io;
use std::time::Duration;

use tokio::net::unix::pipe;

use crate::launch::{OuterPipes, Terminal};

/// Between SIGHUP and SIGKILL, when nobody is attached any more.
pub const HANGUP_GRACE: Duration = Duration::from_secs(10);

/// The outer ends of a command's standard streams.
#[derive(Debug)]
pub enum Streams {
    /// Three pipes.
    Pipes {
        /// What it reads.
        stdin: pipe::Sender,
        /// What it writes.
        stdout: pipe::Receiver,
        /// What it complains.
        stderr: pipe::Receiver,
    },
    /// A terminal.
    Terminal(Terminal),
}

impl Streams {
    /// Of pipes.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn of_pipes(pipes: OuterPipes) -> io::Result<Self> {
        Ok(Self::Pipes {
            stdin: pipe::Sender::from_owned_fd(pipes.stdin)?,
            stdout: pipe::Receiver::from_owned_fd(pipes.stdout)?,
            stderr: pipe::Receiver::from_owned_fd(pipes.stderr)?,
        })
    }
}

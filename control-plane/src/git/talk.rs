//! One conversation with a hook, and the manner of speaking to a pusher: `-----> ` begins a step, ` !     ` a trouble,
//! seven spaces go on with either (Heroku's).

use std::io;

use berth_wire::code::Code;
use berth_wire::report::Trouble;
use berth_wire::terminal::{Colours, harmless};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::protocol::{Examined, FRAME_BYTES_MAX, Hello, LINE_BYTES_MAX, Order, TreeLimits};
use crate::intake::{Intake, IntakeError};
use crate::store::StoreError;

/// The server's end.
pub struct Talk {
    input: BufReader<OwnedReadHalf>,
    output: OwnedWriteHalf,
}

/// Why a conversation ended early.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The hook is gone.
    #[error("the hook went away: {0}")]
    Io(#[from] io::Error),
    /// The hook said something else than agreed.
    #[error("the hook said something that is not understood: {0}")]
    Words(#[from] serde_json::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source could not be taken.
    #[error(transparent)]
    Intake(#[from] IntakeError),
}

impl Talk {
    /// A conversation on this connection.
    pub fn new(stream: UnixStream) -> Self {
        let (input, output) = stream.into_split();
        Self { input: BufReader::new(input), output }
    }

    /// The hook's first words.
    pub async fn hello(&mut self) -> Result<Hello, TalkError> {
        let line = self.line().await?;
        Ok(serde_json::from_slice(&line)?)
    }

    async fn line(&mut self) -> Result<Vec<u8>, TalkError> {
        let mut line = Vec::new();
        (&mut self.input).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(line)
    }

    async fn order(&mut self, order: &Order) -> Result<(), TalkError> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        Ok(self.output.write_all(&line).await?)
    }

    /// Prints a line at the pusher's. It may hold a build's or an app's words, and git hands them to whatever it writes
    /// to: so no control leaves here, not even a colour.
    pub async fn say(&mut self, line: impl Into<String>) -> Result<(), TalkError> {
        let line = line.into();
        self.order(&Order::Say(harmless(&line, Colours::Drop).into_owned())).await
    }

    /// Begins a step.
    pub async fn step(&mut self, words: &str) -> Result<(), TalkError> {
        self.say(format!("-----> {words}")).await
    }

    /// Goes on with it.
    pub async fn detail(&mut self, words: &str) -> Result<(), TalkError> {
        self.say(format!("       {words}")).await
    }

    /// Ends the hook.
    pub async fn exit(&mut self, status: u8) -> Result<(), TalkError> {
        self.order(&Order::Exit(status)).await
    }

    /// A trouble's sentence, last log lines and code.
    pub async fn trouble(&mut self, begin: &str, trouble: &Trouble) -> Result<(), TalkError> {
        self.say(" !").await?;
        self.say(format!(" !     {begin} [{}]: {}", trouble.code, trouble.message)).await?;
        if !trouble.log_tail.is_empty() {
            self.say(" !     The last lines of its log:").await?;
            for line in &trouble.log_tail {
                self.say(format!(" !       {line}")).await?;
            }
        }
        self.say(format!(" !     What it means and what to do: berth explain {}", trouble.code)).await
    }

    /// What failed and its code, when the rest was said before.
    pub async fn failed(&mut self, what: &str, code: Code) -> Result<(), TalkError> {
        self.say(" !").await?;
        self.say(format!(" !     {what} [{code}]")).await?;
        self.say(format!(" !     What it means and what to do: berth explain {code}")).await
    }

    /// Refuses the push with a code and a sentence.
    pub async fn refuse(&mut self, code: Code, sentence: &str) -> Result<(), TalkError> {
        self.say(" !").await?;
        self.say(format!(" !     [{code}] {sentence}")).await?;
        self.say(" !").await?;
        self.exit(1).await
    }

    /// Has the hook examine a commit's tree.
    pub async fn examine(&mut self, commit: &str, limits: TreeLimits) -> Result<Examined, TalkError> {
        self.order(&Order::Archive { commit: commit.to_owned(), limits }).await?;
        let line = self.line().await?;
        Ok(serde_json::from_slice(&line)?)
    }

    /// Takes the tree's tar, which follows an examination that found it sendable. False if git failed at it.
    pub async fn receive(&mut self, intake: &mut Intake) -> Result<bool, TalkError> {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        loop {
            let length = self.input.read_u32().await? as usize;
            if length == 0 {
                return Ok(self.input.read_u8().await? == 0);
            }
            let Some(part) = frame.get_mut(..length) else {
                return Err(io::Error::other("a frame longer than agreed").into());
            };
            self.input.read_exact(part).await?;
            intake.write(part).await?;
        }
    }
}

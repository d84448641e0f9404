//! The stream of an attached command: frames in both directions, the same from the command line through the control plane
//! (which copies bytes and reads none of them) to the agent. Pure encoding; who reads and writes is each process's own business.
//!
//! A frame is its kind (one byte), the length of its content (four bytes, big-endian) and the content.
//!
//! ```text
//! client                                   agent
//!   |                  <── Started            the command was executed
//!   | Stdin, StdinEnd  ──>                    at most STDIN_WINDOW_BYTES that are not yet credited
//!   |                  <── Credit             so many bytes of them were taken
//!   | Resize, Signal   ──>
//!   |                  <── Stdout, Stderr     (a terminal has only Stdout)
//!   | Ping             <─>  Ping              every PING_SECONDS; silence for SILENCE_SECONDS_MAX is a lost connection
//!   |                  <── Exited or Failed   the last frame
//! ```

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::report::Exit;

/// What the connection is upgraded to (RFC 9110 7.8), on both halves of the way.
pub const PROTOCOL: &str = "berth-attach-1";

/// Largest content of a frame. Output is sent in pieces of at most this.
pub const CONTENT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of standard input that may be on their way to a command that does not read them: four pipes full. Frames of other kinds
/// are never held up by them.
pub const STDIN_WINDOW_BYTES: usize = 256 * 1024;

/// Each side sends something at least this often.
pub const PING_SECONDS: u64 = 10;

/// A side that heard nothing for this long has lost the other.
pub const SILENCE_SECONDS_MAX: u64 = 45;

/// Bytes before the content.
const HEADER_BYTES: usize = 5;

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// Why a command did not run, or could not be followed to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachFailure {
    /// Stable code.
    pub code: Code,
    /// One sentence.
    pub message: String,
    /// What a shell would have exited with: 127 if the command is not there, 126 if it cannot be executed.
    pub status: Option<u8>,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Nothing; keeps the connection alive.
    Ping,
    /// Standard input of the command.
    Stdin(Vec<u8>),
    /// Standard output, or what a terminal shows.
    Stdout(Vec<u8>),
    /// Standard error.
    Stderr(Vec<u8>),
    /// The end of standard input.
    StdinEnd,
    /// So many bytes of standard input were taken.
    Credit(u32),
    /// The terminal has another size now.
    Resize(TerminalSize),
    /// A signal for the command.
    Signal(u8),
    /// The command was executed.
    Started,
    /// The command ended.
    Exited(Exit),
    /// It did not run, or was lost.
    Failed(AttachFailure),
}

/// A stream that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream of the command is malformed: {0}; are both sides of one version?")]
pub struct Malformed(&'static str);

impl Frame {
    /// As bytes. Content beyond [`CONTENT_BYTES_MAX`] must have been cut by the sender; the other side refuses it.
    pub fn encode(&self) -> Vec<u8> {
        // Encoding these types cannot fail: they have no maps.
        let (kind, content) = match self {
            Self::Ping => (0, vec![]),
            Self::Stdin(bytes) => return encode(1, bytes),
            Self::Stdout(bytes) => return encode(2, bytes),
            Self::Stderr(bytes) => return encode(3, bytes),
            Self::StdinEnd => (4, vec![]),
            Self::Credit(bytes) => (5, bytes.to_be_bytes().to_vec()),
            Self::Resize(size) => (6, [size.rows.to_be_bytes(), size.columns.to_be_bytes()].concat()),
            Self::Signal(number) => (7, vec![*number]),
            Self::Started => (8, vec![]),
            Self::Exited(exit) => (9, serde_json::to_vec(exit).unwrap_or_default()),
            Self::Failed(failure) => (10, serde_json::to_vec(failure).unwrap_or_default()),
        };
        encode(kind, &content)
    }

    fn decode(kind: u8, content: &[u8]) -> Result<Self, Malformed> {
        let bad = |what| move |_| Malformed(what);
        Ok(match kind {
            0 => Self::Ping,
            1 => Self::Stdin(content.to_vec()),
            2 => Self::Stdout(content.to_vec()),
            3 => Self::Stderr(content.to_vec()),
            4 => Self::StdinEnd,
            5 => {
                Self::Credit(u32::from_be_bytes(content.try_into().map_err(bad("a credit of another size"))?))
            }
            6 => {
                let [a, b, c, d] = content.try_into().map_err(bad("a size of another size"))?;
                Self::Resize(TerminalSize {
                    rows: u16::from_be_bytes([a, b]),
                    columns: u16::from_be_bytes([c, d]),
                })
            }
            7 => Self::Signal(*content.first().ok_or(Malformed("a signal without a number"))?),
            8 => Self::Started,
            9 => Self::Exited(serde_json::from_slice(content).map_err(|_| Malformed("an unknown exit"))?),
            10 => Self::Failed(serde_json::from_slice(content).map_err(|_| Malformed("an unknown failure"))?),
            _ => return Err(Malformed("a frame of an unknown kind")),
        })
    }
}

fn encode(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
    bytes.push(kind);
    bytes.extend((content.len() as u32).to_be_bytes());
    bytes.extend(content);
    bytes
}

/// Cuts bytes as they come into frames. Holds at most one frame and what was read beyond it.
#[derive(Debug, Default)]
pub struct Decoder(Vec<u8>);

impl Decoder {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// The stream is malformed; it cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some((&[kind, a, b, c, d], rest)) = self.0.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > CONTENT_BYTES_MAX {
            return Err(Malformed("a frame that is too large"));
        }
        let Some(content) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::decode(kind, content)?;
        self.0.drain(..HEADER_BYTES + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Frame> {
        let failure = AttachFailure { code: Code::R19, message: "x: not found".into(), status: Some(127) };
        vec![
            Frame::Ping,
            Frame::Stdin(vec![0, 255, 10]),
            Frame::Stdout(vec![1; CONTENT_BYTES_MAX]),
            Frame::Stderr(vec![]),
            Frame::StdinEnd,
            Frame::Credit(70_000),
            Frame::Resize(TerminalSize { rows: 24, columns: 300 }),
            Frame::Signal(15),
            Frame::Started,
            Frame::Exited(Exit::Code(3)),
            Frame::Failed(failure),
        ]
    }

    #[test]
    fn frames_must_survive_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = all().iter().flat_map(Frame::encode).collect();
        for piece in [1, 3, 5, 7_001, bytes.len()] {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(piece) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, all());
        }
    }

    #[test]
    fn what_is_no_frame_must_be_refused() {
        for bad in [&[99, 0, 0, 0, 0][..], &[1, 255, 0, 0, 0], &[5, 0, 0, 0, 1, 9], &[7, 0, 0, 0, 0]] {
            let mut decoder = Decoder::default();
            decoder.push(bad);
            assert!(decoder.next_frame().is_err(), "{bad:?}");
        }
    }
}

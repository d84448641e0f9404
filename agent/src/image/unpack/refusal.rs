//! Why an archive is refused, in a sentence that people are shown, on whatever terminal.

use std::io;

use berth_wire::terminal::{Colours, harmless};

use super::name::shown;
use super::stream::Bomb;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    Bomb(String),
    #[error("it has more than {0} entries")]
    Entries(u64),
    #[error("the name {0:?} {1}")]
    Name(String, &'static str),
    #[error("{0:?} {1}")]
    Entry(String, &'static str),
    #[error("{0:?}: {1}")]
    Failed(String, io::Error),
    #[error("it is not a readable tar: {0}")]
    Io(io::Error),
}

/// Most characters of a sentence.
const SENTENCE_CHARS_MAX: usize = 600;

impl Refusal {
    /// For people: on one line, bounded, and nothing in it that a terminal would act on. What reads headers quotes them as they are.
    pub(super) fn sentence(&self) -> String {
        let text = self.to_string().replace(['\n', '\t'], " ");
        harmless(&text, Colours::Drop).chars().take(SENTENCE_CHARS_MAX).collect()
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Bomb>()) {
            Some(bomb) => Self::Bomb(bomb.to_string()),
            None => Self::Io(error),
        }
    }
}

/// A failure on one entry keeps its name, except for a full disk and a bomb, which concern the whole.
pub(super) fn at(path: &[u8]) -> impl FnOnce(io::Error) -> Refusal {
    let path = shown(path);
    move |error| match Refusal::from(error) {
        Refusal::Io(error) => {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if full { Refusal::Io(error) } else { Refusal::Failed(path, error) }
        }
        other => other,
    }
}

pub(super) fn errno_at(path: &[u8]) -> impl FnOnce(rustix::io::Errno) -> Refusal {
    let at = at(path);
    move |errno| at(errno.into())
}

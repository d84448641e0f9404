//! The journal: what happened on this host, numbered, until the control plane has received it.
//!
//! Numbers grow across restarts of the agent; after a reboot they jump by [`NUMBERS_SKIPPED_AFTER_REBOOT`], because lines
//! that were not synced may be lost and a number that is used twice would hide an event. The journal is bounded: the oldest
//! events are dropped first, and one event says how many.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use berth_wire::code::Code;
use berth_wire::id::{AppId, InstanceId};
use berth_wire::report::{EVENTS_MAX, HostEvent};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// More events than can lie unsynced in the page cache: the kernel writes back within 30 s, and 30 a second is a busy host.
const NUMBERS_SKIPPED_AFTER_REBOOT: u64 = 1_000;

/// The file is rewritten when it has this many lines: four journals' worth, so that rewriting is rare.
const FILE_LINES_MAX: usize = 4 * EVENTS_MAX;

/// An event before it has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// The app it concerns, if any.
    pub app: Option<AppId>,
    /// The instance it concerns, if any.
    pub instance: Option<InstanceId>,
    /// `web.1`, or the part of the platform.
    pub process: String,
    /// A code where there is something to look up.
    pub code: Option<Code>,
    /// One sentence.
    pub message: String,
    /// Extra facts for machines; never a secret.
    pub facts: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum Line {
    Boot { id: String, next: u64 },
    Event(HostEvent),
    Received { number: u64 },
}

struct State {
    events: VecDeque<HostEvent>,
    next: u64,
    dropped: u64,
    lines: usize,
    file: std::fs::File,
}

/// The journal of one agent installation.
pub struct Journal {
    path: PathBuf,
    boot: String,
    state: Mutex<State>,
    newest: watch::Sender<u64>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The journal cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("could not open the journal {path}: {source}")]
pub struct JournalError {
    path: PathBuf,
    source: std::io::Error,
}

impl Journal {
    /// Opens `data_dir/journal`, with what was not yet received. `boot` is the kernel's boot id.
    ///
    /// # Errors
    /// The file cannot be read or made. Lines that cannot be read (torn by a power cut) are skipped.
    pub fn open(data_dir: &Path, boot: &str) -> Result<Self, JournalError> {
        let path = data_dir.join("journal");
        let failed = |source| JournalError { path: path.clone(), source };
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(failed(e)),
        };
        let mut events = VecDeque::new();
        let mut next = 1;
        let mut last_boot = None;
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(Line::Boot { id, next: stored }) => {
                    last_boot = Some(id);
                    next = next.max(stored);
                }
                Ok(Line::Event(event)) => {
                    next = next.max(event.number + 1);
                    events.push_back(event);
                }
                Ok(Line::Received { number }) => events.retain(|e| e.number > number),
                Err(_) => {}
            }
        }
        if last_boot.is_some_and(|last| last != boot) {
            next += NUMBERS_SKIPPED_AFTER_REBOOT;
        }
        while events.len() > EVENTS_MAX {
            events.pop_front();
        }
        let file = rewrite(&path, boot, next, &events).map_err(failed)?;
        let lines = events.len() + 1;
        let state = Mutex::new(State { events, next, dropped: 0, lines, file });
        Ok(Self { path, boot: boot.to_owned(), state, newest: watch::Sender::new(next - 1) })
    }

    /// Appends an event. A disk that is full does not stop it: the event then lives in memory only.
    pub fn append(&self, at: Timestamp, happening: Happening) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Happening { app, instance, process, code, message, facts } = happening;
        let number = state.next;
        state.next += 1;
        let event = HostEvent { number, at, app, instance, process, code, message, facts };
        self.persist(&mut state, &Line::Event(event.clone()));
        state.events.push_back(event);
        if state.events.len() > EVENTS_MAX {
            state.events.pop_front();
            state.dropped += 1;
        }
        self.newest.send_replace(number);
    }

    /// What is not yet received, oldest first, at most [`EVENTS_MAX`]; with a last one about how many were dropped, if any were.
    pub fn pending(&self, now: Timestamp) -> Vec<HostEvent> {
        let dropped = {
            let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::take(&mut state.dropped)
        };
        if dropped > 0 {
            self.append(
                now,
                Happening {
                    app: None,
                    instance: None,
                    process: "agent".to_owned(),
                    code: None,
                    message: format!(
                        "{dropped} older events were dropped before the control plane received them"
                    ),
                    facts: BTreeMap::new(),
                },
            );
            // The append itself may have pushed one more out; it is counted for the next time.
        }
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.events.iter().cloned().collect()
    }

    /// Forgets events up to and including `number`.
    pub fn received(&self, number: u64) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = state.events.len();
        state.events.retain(|e| e.number > number);
        if state.events.len() != before {
            self.persist(&mut state, &Line::Received { number });
        }
    }

    /// The number of the newest event, now and whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn persist(&self, state: &mut State, line: &Line) {
        if state.lines >= FILE_LINES_MAX {
            match rewrite(&self.path, &self.boot, state.next, &state.events) {
                Ok(file) => {
                    state.file = file;
                    state.lines = state.events.len() + 1;
                }
                Err(error) => {
                    tracing::warn!(%error, path = %self.path.display(), "could not rewrite the journal")
                }
            }
        }
        let written = encode(line).and_then(|bytes| state.file.write_all(&bytes));
        match written {
            Ok(()) => state.lines += 1,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "could not write to the journal")
            }
        }
    }
}

fn encode(line: &Line) -> std::io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn rewrite(
    path: &Path,
    boot: &str,
    next: u64,
    events: &VecDeque<HostEvent>,
) -> std::io::Result<std::fs::File> {
    let mut bytes = encode(&Line::Boot { id: boot.to_owned(), next })?;
    for event in events {
        bytes.extend(encode(&Line::Event(event.clone()))?);
    }
    crate::ledger::write_durably(path, &[&bytes])?;
    std::fs::OpenOptions::new().append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str) -> Happening {
        Happening {
            app: None,
            instance: None,
            process: "web.1".to_owned(),
            code: None,
            message: message.to_owned(),
            facts: BTreeMap::new(),
        }
    }

    fn messages(journal: &Journal) -> Vec<(u64, String)> {
        journal.pending(Timestamp::UNIX_EPOCH).into_iter().map(|e| (e.number, e.message)).collect()
    }

    #[test]
    fn numbers_must_go_on_after_a_restart_and_events_wait_until_received() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), "boot-1").unwrap();
        journal.append(Timestamp::UNIX_EPOCH, said("one"));
        journal.append(Timestamp::UNIX_EPOCH, said("two"));
        journal.received(1);
        let again = Journal::open(dir.path(), "boot-1").unwrap();
        again.append(Timestamp::UNIX_EPOCH, said("three"));
        assert_eq!(messages(&again), [(2, "two".to_owned()), (3, "three".to_owned())]);
        again.received(3);
        let third = Journal::open(dir.path(), "boot-1").unwrap();
        third.append(Timestamp::UNIX_EPOCH, said("four"));
        assert_eq!(messages(&third), [(4, "four".to_owned())]);
    }

    #[test]
    fn no_number_must_be_used_twice_after_a_reboot_that_lost_lines() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), "boot-1").unwrap();
        journal.append(Timestamp::UNIX_EPOCH, said("one"));
        let again = Journal::open(dir.path(), "boot-2").unwrap();
        again.append(Timestamp::UNIX_EPOCH, said("two"));
        assert_eq!(messages(&again).last().unwrap().0, 2 + NUMBERS_SKIPPED_AFTER_REBOOT);
    }

    #[test]
    fn a_torn_line_must_be_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), "b").unwrap();
        journal.append(Timestamp::UNIX_EPOCH, said("one"));
        let mut bytes = std::fs::read(dir.path().join("journal")).unwrap();
        bytes.extend(b"{\"line\":\"event\",\"num");
        std::fs::write(dir.path().join("journal"), bytes).unwrap();
        assert_eq!(messages(&Journal::open(dir.path(), "b").unwrap()), [(1, "one".to_owned())]);
    }

    #[test]
    fn the_journal_must_stay_bounded_and_say_what_it_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), "b").unwrap();
        for n in 0..EVENTS_MAX * 5 {
            journal.append(Timestamp::UNIX_EPOCH, said(&n.to_string()));
        }
        let pending = messages(&journal);
        assert_eq!(pending.len(), EVENTS_MAX);
        assert!(pending.last().unwrap().1.contains("were dropped"), "{:?}", pending.last());
        let lines = std::fs::read_to_string(dir.path().join("journal")).unwrap().lines().count();
        assert!(lines <= FILE_LINES_MAX + 1, "{lines}");
    }
}

//! One log session: the last lines, then (if asked) everything new until the other side hangs up.

use std::time::Duration;

use berth_wire::log::LogLine;
use berth_wire::session::LOG_LINES_MAX;
use tokio::sync::mpsc;

use super::follow::Follower;
use super::history::history;
use super::source::Selection;

/// Between two looks at a log that has nothing new: what a person does not notice, and five stats per file and second.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What somebody wants to read.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose, and where.
    pub selection: Selection,
    /// How many of the last lines; at most [`LOG_LINES_MAX`].
    pub lines: u32,
    /// Whether to go on.
    pub follow: bool,
}

/// Sends lines until there are no more, or nobody wants them. Blocks; a reader that is slow slows it down, nothing else.
pub fn serve(wanted: Wanted, lines: &mpsc::Sender<LogLine>) {
    let sources = wanted.selection.sources();
    let (past, positions) = history(&sources, wanted.lines.min(LOG_LINES_MAX) as usize);
    if !send(past, lines) || !wanted.follow {
        return;
    }
    let mut follower = Follower::new(wanted.selection, positions);
    while !lines.is_closed() {
        let look = follower.look();
        if !send(look.lines, lines) {
            return;
        }
        if !look.more {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn send(batch: Vec<LogLine>, lines: &mpsc::Sender<LogLine>) -> bool {
    batch.into_iter().all(|line| lines.blocking_send(line).is_ok())
}

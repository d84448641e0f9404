//! One log session: the last lines, then (if asked) everything new until the other side hangs up.

use std::path::Path;
use std::time::Duration;

use berth_wire::id::AppId;
use berth_wire::log::LogLine;
use berth_wire::session::LOG_LINES_MAX;
use tokio::sync::mpsc;

use super::follow::Follower;
use super::history::history;
use super::name::{app_dir, list};

/// Between two looks at a log that has nothing new: what a person does not notice, and five stats per file and second.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What somebody wants to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose log.
    pub app: AppId,
    /// Only this process type or instance: `web` or `web.1`.
    pub process: Option<String>,
    /// How many of the last lines; at most [`LOG_LINES_MAX`].
    pub lines: u32,
    /// Whether to go on.
    pub follow: bool,
}

/// Sends lines until there are no more, or nobody wants them. Blocks; a reader that is slow slows it down, nothing else.
pub fn serve(logs: &Path, wanted: &Wanted, lines: &mpsc::Sender<LogLine>) {
    let dir = app_dir(logs, wanted.app);
    let names = list(&dir, wanted.process.as_deref());
    let (past, positions) = history(&dir, &names, wanted.lines.min(LOG_LINES_MAX) as usize);
    if !send(past, lines) || !wanted.follow {
        return;
    }
    let mut follower = Follower::new(dir, wanted.process.clone(), positions);
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

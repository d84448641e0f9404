//! Reading the logs that the launcher and the edge write: history, following, trimming. Writing them is the launcher's, so that a dead agent
//! neither blocks an app nor loses a line.
//!
//! One file per instance, `LOGS/<app>/<process>.<index>.<instance>.log`, lines `<unix microseconds> <text>`, rotated once to
//! `.1`. The requests of all apps are in the edge's one access log. Files outlive their instance. Everything here is synchronous file I/O, to be run where blocking is allowed.
//!
//! | module | |
//! |---|---|
//! | [`name`] | file names |
//! | [`line`] | bytes to lines |
//! | [`router`] | the edge's access log to lines of one app |
//! | [`source`] | which files an app's lines are in, and what a line of each says |
//! | [`backwards`] | one file's lines, newest first |
//! | [`history`] | the last lines of several files, merged by time |
//! | [`follow`] | what is appended from now on, across rotations |
//! | [`serve`] | a log session: history, then follow |
//! | [`trim`] | what is kept, and for how long |

pub mod backwards;
pub mod follow;
pub mod history;
pub mod line;
pub mod name;
pub mod router;
pub mod serve;
pub mod source;
pub mod trim;

/// Size at which the launcher rotates an instance's file, in bytes; with its `.1` an instance holds at most twice this.
/// At the default log rate of 1,000 lines a second and 100 bytes a line it holds 100 s of the loudest app, and days of a normal one.
pub const FILE_BYTES_MAX: u64 = 10 << 20;

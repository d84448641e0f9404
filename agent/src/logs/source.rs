//! One log that an app's lines are read from: a file with its rotated neighbour, and what a line of it says.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use berth_wire::id::AppId;
use berth_wire::log::LogLine;

use super::line::parse;
use super::name::{LogName, app_dir, list};
use super::router;

/// How far back a history looks for an app's requests among those of all: some 70,000.
const ROUTER_BYTES_MAX: u64 = 32 << 20;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The directory of the instances' logs.
    pub instances: PathBuf,
    /// The edge's access log, which has all apps' requests.
    pub access: PathBuf,
}

/// Whose lines are wanted.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Where they are.
    pub places: Places,
    /// Whose log.
    pub app: AppId,
    /// Only this process type or instance, `web` or `web.1`, or only the requests: `router`.
    pub process: Option<String>,
}

impl Selection {
    /// The logs that there are now, in order.
    pub fn sources(&self) -> Vec<Source> {
        let dir = app_dir(&self.places.instances, self.app);
        let names = list(&dir, self.process.as_deref());
        let mut sources: Vec<Source> = names.iter().map(|name| Source::of_instance(&dir, name)).collect();
        if self.process.as_deref().is_none_or(|process| process == router::PROCESS) {
            sources.push(Source { path: self.places.access.clone(), whose: Whose::Router(self.app) });
        }
        sources
    }
}

/// One log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    path: PathBuf,
    whose: Whose,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// An instance's, by its label.
    Instance(String),
    /// The requests of one app.
    Router(AppId),
}

impl Source {
    /// An instance's.
    pub fn of_instance(app_dir: &Path, name: &LogName) -> Self {
        Self { path: app_dir.join(name.file_name()), whose: Whose::Instance(name.label()) }
    }

    /// The current file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What one line of the file says, oldest first: several if it was too long for one, none if it is not for us.
    pub fn lines(&self, line: &[u8]) -> Vec<LogLine> {
        match &self.whose {
            Whose::Instance(label) => {
                parse(line).into_iter().map(|stamped| stamped.into_line(label)).collect()
            }
            Whose::Router(app) => router::line_of(line, *app).into_iter().collect(),
        }
    }

    /// How many bytes a history reads of it at most.
    pub fn history_bytes_max(&self) -> u64 {
        match self.whose {
            // Bounded by what the launcher keeps.
            Whose::Instance(_) => u64::MAX,
            Whose::Router(_) => ROUTER_BYTES_MAX,
        }
    }
}

/// Opens a log. The edge may put anything where its log should be: what is no plain file is not followed, waited for or read.
///
/// # Errors
/// It is not there, cannot be read, or is no plain file.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_file_must_not_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(open(&file).is_ok());
        assert!(open(&link).is_err() && open(dir.path()).is_err());
    }
}

//! The last table on disk, so that an edge that is killed and started again serves at once, with nobody to ask.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use berth_wire::edge::Table;

/// `table.json` in the edge's directory.
#[derive(Debug, Clone)]
pub struct TableFile {
    path: PathBuf,
}

impl TableFile {
    /// The one in this directory.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("table.json") }
    }

    /// The stored table. None if there is none or it is unreadable, which is logged: the agent sends one anyway.
    pub fn load(&self) -> Option<Table> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "could not read the stored route table");
                return None;
            }
        };
        serde_json::from_slice(&bytes)
            .inspect_err(|error| {
                tracing::error!(path = %self.path.display(), %error, "the stored route table is malformed; waiting for the agent's");
            })
            .ok()
    }

    /// Stores a table. If that fails, the stored one is removed: no table after a restart is better than an old one, whose addresses
    /// may by then be other instances'.
    ///
    /// # Errors
    /// When it could neither be stored nor the old one removed.
    pub fn store(&self, table: &Table) -> io::Result<()> {
        let Err(error) = self.write(table) else { return Ok(()) };
        tracing::error!(path = %self.path.display(), %error, "could not store the route table; the old one is removed");
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_dir(),
        }
    }

    fn write(&self, table: &Table) -> io::Result<()> {
        let temporary = self.path.with_extension("json.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(table)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        self.sync_dir()
    }

    fn sync_dir(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

//! Reading and writing control files: whole values at once, by path or by a descriptor that is kept. What the
//! values mean belongs to the controllers' files.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What could not be done to which control file.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file operation failed.
    #[error("cgroup: {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: String,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A control file does not say what it should.
    #[error("cgroup: {} has no {wanted}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The machine lacks a controller.
    #[error(
        "cgroup: no {0} controller on this machine; enable it on the kernel's command line or in its configuration"
    )]
    NoController(&'static str),
    /// More memory is in use than the new limit, and could not be reclaimed; the limit is what it was.
    #[error("it uses {} MiB of memory that cannot be taken back, more than the {} MiB it may have", .usage_bytes >> 20, .max_bytes >> 20)]
    MemoryInUse {
        /// In use, in bytes.
        usage_bytes: u64,
        /// The new limit, in bytes.
        max_bytes: u64,
    },
    /// The device rule could not be put on.
    #[error("cgroup: device rule on {}: {source}; the kernel needs CONFIG_CGROUP_BPF (or the v1 devices controller)", .path.display())]
    DeviceRule {
        /// The parent group.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

pub(super) fn io_error(action: impl Into<String>, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let (action, path) = (action.into(), path.to_owned());
    move |source| CgroupError::Io { action, path, source }
}

/// One value to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The control file's name.
    pub file: &'static str,
    /// What to write.
    pub value: String,
    /// Whether a kernel without this file may be run on; what is lost is said where the setting is made.
    pub optional: bool,
}

impl Setting {
    pub(super) fn new(file: &'static str, value: impl ToString) -> Self {
        Self { file, value: value.to_string(), optional: false }
    }

    pub(super) fn optional(file: &'static str, value: impl ToString) -> Self {
        Self { optional: true, ..Self::new(file, value) }
    }
}

/// Writes the settings in order.
pub(super) fn apply(group: &Path, settings: &[Setting]) -> Result<(), CgroupError> {
    for setting in settings {
        let path = group.join(setting.file);
        match write(&path, &setting.value) {
            Err(CgroupError::Io { source, .. })
                if setting.optional && source.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

/// Writes one value: one write call, because the kernel parses each call by itself.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(io_error(format!("write {value:?} to"), path))
}

/// Reads a whole file.
pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    std::fs::read_to_string(path).map_err(io_error("read", path))
}

/// Reads one number.
pub(super) fn read_number(path: &Path) -> Result<u64, CgroupError> {
    read(path)?.trim().parse().map_err(|_| CgroupError::Content { path: path.to_owned(), wanted: "number" })
}

/// A control file that is kept open to be read again and again.
#[derive(Debug)]
pub(super) struct Kept {
    file: File,
    path: PathBuf,
}

/// The longest of them, `memory.stat`, has about 2,500 bytes on kernel 6.18.
const CONTENT_BYTES_MAX: usize = 16 * 1_024;

impl Kept {
    pub(super) fn open(group: &Path, name: &str) -> Result<Self, CgroupError> {
        let path = group.join(name);
        let file = File::open(&path).map_err(io_error("open", &path))?;
        Ok(Self { file, path })
    }

    /// The whole content as of now.
    pub(super) fn read(&self) -> Result<String, CgroupError> {
        let mut content = vec![0; CONTENT_BYTES_MAX];
        let mut length = 0;
        while length < content.len() {
            match self.file.read_at(&mut content[length..], length as u64) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(source) => return Err(io_error("read", &self.path)(source)),
            }
        }
        content.truncate(length);
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// The one number the file holds.
    pub(super) fn number(&self) -> Result<u64, CgroupError> {
        let content = self.read()?;
        content.trim().parse().map_err(|_| CgroupError::Content { path: self.path.clone(), wanted: "number" })
    }

    /// The numbers behind these keys of a flat keyed file (cgroup-v2.rst, Format).
    pub(super) fn keyed<const N: usize>(&self, keys: [&'static str; N]) -> Result<[u64; N], CgroupError> {
        let content = self.read()?;
        let mut values = [0; N];
        for (value, key) in values.iter_mut().zip(keys) {
            *value = keyed(&content, key)
                .ok_or_else(|| CgroupError::Content { path: self.path.clone(), wanted: key })?;
        }
        Ok(values)
    }
}

/// The number behind a key of a flat keyed file.
pub(super) fn keyed(content: &str, key: &str) -> Option<u64> {
    content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_must_not_be_mistaken_for_one_it_is_the_start_of() {
        let content = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(content, "oom_kill"), Some(3));
        assert_eq!(keyed(content, "oom"), None);
    }

    #[test]
    fn an_optional_setting_must_be_skipped_only_where_the_file_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        apply(dir.path(), &[Setting::optional("memory.swap.max", 0)]).unwrap();
        let error = apply(dir.path(), &[Setting::new("memory.max", 0)]).unwrap_err();
        assert!(error.to_string().contains("memory.max"), "{error}");
    }
}

//! A folder as a tar stream, for `deploy` without git. What `.gitignore` and `.berthignore` name stays at home,
//! and so does `.git`. The tar is the same for the same files: no owner, no times.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use tar::{Builder, HeaderMode};

/// Writes the tar of these files of `folder`, as [`files`] found them.
///
/// # Errors
/// A file could not be read, or the reader of `out` went away.
pub fn write_tar(folder: &Path, files: &[PathBuf], out: impl Write) -> io::Result<()> {
    let mut tar = Builder::new(out);
    tar.mode(HeaderMode::Deterministic);
    tar.follow_symlinks(false);
    for path in files {
        let name = path.strip_prefix(folder).map_err(io::Error::other)?;
        tar.append_path_with_name(path, name)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    tar.finish()?;
    tar.into_inner()?.flush()
}

/// Files and symlinks that are not ignored, sorted, so that the tar does not depend on the file system's order.
///
/// # Errors
/// A folder could not be read.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let walk = WalkBuilder::new(folder)
        .hidden(false)
        .parents(false)
        .ignore(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .add_custom_ignore_filename(".berthignore")
        .follow_links(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .sort_by_file_path(Path::cmp)
        .build();
    let mut files = Vec::new();
    for entry in walk {
        let entry = entry.map_err(io::Error::other)?;
        if entry.file_type().is_some_and(|kind| kind.is_file() || kind.is_symlink()) {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(folder: &Path) -> Vec<String> {
        let mut bytes = Vec::new();
        write_tar(folder, &files(folder).unwrap(), &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn ignored_files_must_stay_at_home_and_hidden_ones_must_go() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            (".gitignore", "*.log\n/secret\n"),
            (".berthignore", "docs/\n"),
            (".python-version", "3.13"),
            ("app.py", ""),
            ("x.log", ""),
            ("secret", ""),
            ("docs/a", ""),
            ("lib/secret", ""),
            (".git/HEAD", ""),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(
            names(folder.path()),
            [".berthignore", ".gitignore", ".python-version", "app.py", "lib/secret"]
        );
    }

    #[test]
    fn the_same_files_must_give_the_same_bytes() {
        let tar = |folder: &Path| {
            let mut bytes = Vec::new();
            write_tar(folder, &files(folder).unwrap(), &mut bytes).unwrap();
            bytes
        };
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["b", "a", "c"] {
            fs::write(one.path().join(name), name).unwrap();
        }
        for name in ["c", "a", "b"] {
            fs::write(two.path().join(name), name).unwrap();
        }
        assert_eq!(tar(one.path()), tar(two.path()));
    }

    #[cfg(unix)]
    #[test]
    fn a_symlink_must_stay_one() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let mut bytes = Vec::new();
        write_tar(folder.path(), &files(folder.path()).unwrap(), &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().entry_type(), tar::EntryType::Symlink);
        assert_eq!(entry.size(), 0);
    }
}

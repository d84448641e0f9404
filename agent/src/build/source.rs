//! The source tree: a tar from the control plane, read here by its headers only. Nothing of it is ever unpacked by
//! the agent: that happens in a container (`pipeline`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::report::Trouble;
use futures_util::StreamExt;
use sha2::{Digest as _, Sha256};

use super::trouble;

/// The largest source: 1 GiB is four times the largest slug source that Heroku compiles at all (its slug limit is 500 MB).
pub const SOURCE_BYTES_MAX: u64 = 1 << 30;
/// Most entries of a source: ten times a Linux kernel tree's would still be a mistake such as a committed node_modules.
pub const SOURCE_ENTRIES_MAX: u64 = 500_000;
/// The largest file that is read out of a source: lock files of large apps have 3 MiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A source tree, as a tar file on disk.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
}

impl Source {
    /// Fetches a source from the control plane and checks its digest.
    ///
    /// # Errors
    /// D14 if the control plane is not reachable, B22 if the source is too large, B18 if it is not what its digest says.
    pub async fn fetch(
        request: reqwest::RequestBuilder,
        digest: &Digest,
        path: PathBuf,
    ) -> Result<Self, Trouble> {
        let unreachable = |error: &dyn std::fmt::Display| {
            trouble(
                Code::D14,
                format!("The source could not be fetched from the control plane: {error}; push again"),
            )
        };
        let response = request.send().await.and_then(reqwest::Response::error_for_status);
        let mut body = response.map_err(|error| unreachable(&error))?.bytes_stream();
        let unwritable = |error| io_trouble("The source could not be stored on the host", &error);
        let mut file = File::create(&path).map_err(unwritable)?;
        let (mut hash, mut length) = (Sha256::new(), 0_u64);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| unreachable(&error))?;
            length += chunk.len() as u64;
            if length > SOURCE_BYTES_MAX {
                return Err(too_large(format!("it is larger than {} MiB", SOURCE_BYTES_MAX >> 20)));
            }
            hash.update(&chunk);
            file.write_all(&chunk).map_err(unwritable)?;
        }
        if Digest::from_hasher(hash) != *digest {
            return Err(trouble(
                Code::B18,
                "The source was cut short on its way to the host; push again".to_owned(),
            ));
        }
        Self::open(path).await
    }

    /// Opens a tar that is on disk.
    ///
    /// # Errors
    /// B11 for a source without a file, B22 for one with too many, B20 for what is no tar.
    pub async fn open(path: PathBuf) -> Result<Self, Trouble> {
        let scanned = path.clone();
        blocking(move || check(&scanned)).await?;
        Ok(Self { path })
    }

    /// The tar, from its beginning.
    ///
    /// # Errors
    /// D13 or B18 if it cannot be opened.
    pub fn reader(&self) -> Result<File, Trouble> {
        File::open(&self.path).map_err(|error| io_trouble("The source could not be read on the host", &error))
    }

    /// The content of some regular files; what is absent, or is a link or a folder, is left out.
    ///
    /// # Errors
    /// B22 if one is larger than a file of its kind can be.
    pub async fn read(&self, names: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, Trouble> {
        let (path, names) =
            (self.path.clone(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        blocking(move || read(&path, &names)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(trouble(Code::B18, format!("Reading the source was interrupted ({error}); push again")))
        }
    }
}

fn archive(path: &Path) -> Result<tar::Archive<BufReader<File>>, Trouble> {
    let file =
        File::open(path).map_err(|error| io_trouble("The source could not be read on the host", &error))?;
    Ok(tar::Archive::new(BufReader::new(file)))
}

fn broken(error: &std::io::Error) -> Trouble {
    trouble(Code::B20, format!("The source is not a readable tar: {error}"))
}

fn too_large(why: String) -> Trouble {
    trouble(
        Code::B22,
        format!(
            "The source is too large: {why}. Leave out what a build can make or fetch (.gitignore; .berthignore for `berth deploy`)"
        ),
    )
}

/// The name of an entry as a path relative to the source's root, without `./`.
fn name_of<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    name.trim_start_matches("./").trim_end_matches('/').to_owned()
}

fn check(path: &Path) -> Result<(), Trouble> {
    let mut archive = archive(path)?;
    let (mut entries, mut files) = (0, 0_u64);
    for entry in archive.entries_with_seek().map_err(|error| broken(&error))? {
        let entry = entry.map_err(|error| broken(&error))?;
        entries += 1;
        files += u64::from(
            !entry.header().entry_type().is_dir() && !entry.header().entry_type().is_pax_global_extensions(),
        );
        if entries > SOURCE_ENTRIES_MAX {
            return Err(too_large(format!("it has more than {SOURCE_ENTRIES_MAX} files")));
        }
    }
    if files == 0 {
        return Err(trouble(Code::B11, "The source has no file; commit something first".to_owned()));
    }
    Ok(())
}

fn read(path: &Path, names: &[String]) -> Result<BTreeMap<String, Vec<u8>>, Trouble> {
    let mut archive = archive(path)?;
    let mut found = BTreeMap::new();
    for entry in archive.entries_with_seek().map_err(|error| broken(&error))? {
        let mut entry = entry.map_err(|error| broken(&error))?;
        let name = name_of(&entry);
        if !names.contains(&name) {
            continue;
        }
        // As unpacking does it: a later entry of the same name takes the earlier one's place.
        found.remove(&name);
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if entry.size() > FILE_BYTES_MAX {
            return Err(too_large(format!("{name} is larger than {} MiB", FILE_BYTES_MAX >> 20)));
        }
        let mut content = Vec::with_capacity(usize::try_from(entry.size()).unwrap_or_default());
        entry.read_to_end(&mut content).map_err(|error| broken(&error))?;
        found.insert(name, content);
    }
    Ok(found)
}

/// A failed file operation of the host's, as the person who pushed is told.
pub fn io_trouble(what: &str, error: &std::io::Error) -> Trouble {
    let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let code = if full { Code::D13 } else { Code::B18 };
    trouble(code, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(entries: &[(&str, tar::EntryType, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(file.reopen().unwrap());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if *kind == tar::EntryType::Symlink {
                header.set_link_name("/etc/passwd").unwrap();
            }
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.finish().unwrap();
        file
    }

    async fn source(
        entries: &[(&str, tar::EntryType, &[u8])],
    ) -> Result<(Source, tempfile::NamedTempFile), Trouble> {
        let file = tar(entries);
        Ok((Source::open(file.path().to_owned()).await?, file))
    }

    use tar::EntryType::{Directory, Regular, Symlink};

    #[tokio::test]
    async fn files_must_be_found_by_their_path_whatever_the_prefix() {
        let (source, _file) = source(&[
            ("./Procfile", Regular, b"web: a"),
            ("app/", Directory, b""),
            ("app/x.txt", Regular, b"x"),
        ])
        .await
        .unwrap();
        let found = source.read(&["Procfile", "app/x.txt", "absent"]).await.unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found["Procfile"], b"web: a");
    }

    #[tokio::test]
    async fn a_link_must_not_be_read_through() {
        let (source, _file) =
            source(&[("requirements.txt", Regular, b"a"), ("requirements.txt", Symlink, b"")]).await.unwrap();
        assert!(source.read(&["requirements.txt"]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_empty_source_must_be_refused_with_its_code() {
        assert_eq!(source(&[]).await.unwrap_err().code, Code::B11);
        assert_eq!(source(&[("a/", Directory, b"")]).await.unwrap_err().code, Code::B11);
    }

    #[tokio::test]
    async fn what_is_no_tar_must_be_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7_u8; 2_000]).unwrap();
        assert_eq!(Source::open(file.path().to_owned()).await.unwrap_err().code, Code::B20);
    }
}

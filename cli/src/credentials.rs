//! Where tokens are kept between two commands: `credentials.toml`, readable by its owner only.
//! Which of them a command uses is decided in [`crate::session`].

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// The control plane used when nothing else says which.
    pub current: Option<String>,
    /// Each control plane signed in to, by its URL as written by [`server_key`].
    pub servers: BTreeMap<String, Server>,
}

/// One control plane.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The token's secret.
    pub token: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server { token: (secret) }")
    }
}

/// A control plane's URL as the file's key: scheme, host and port, no path.
pub fn server_key(url: &reqwest::Url) -> String {
    url.origin().ascii_serialization()
}

/// Where the file is: `BERTH_CONFIG_DIR`, else `berth` in the folder where this system keeps configuration.
///
/// # Errors
/// No such folder is known (`HOME` is not set).
pub fn path() -> Result<PathBuf, Failure> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("BERTH_CONFIG_DIR")
        .or_else(|| set("XDG_CONFIG_HOME").map(|dir| dir.join("berth")))
        .or_else(|| if cfg!(windows) { set("APPDATA").map(|dir| dir.join("berth")) } else { None })
        .or_else(|| env::home_dir().map(|home| home.join(".config").join("berth")))
        .map(|dir| dir.join("credentials.toml"))
        .ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                "There is no home directory to keep the token in; set BERTH_CONFIG_DIR",
            )
        })
}

impl Credentials {
    /// Reads the file; nothing yet is no error.
    ///
    /// # Errors
    /// It cannot be read or parsed.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|e| {
                Failure::local(
                    format!("reading {} (delete it and sign in again)", path.display()),
                    e.message(),
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::local(format!("reading {}", path.display()), error)),
        }
    }

    /// Writes the file whole: to a new one of mode 0600, then renamed over the old.
    ///
    /// # Errors
    /// The folder or file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::local(format!("writing {}", path.display()), error);
        let text = toml::to_string(self).map_err(|e| Failure::local("writing the credentials as TOML", e))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let new = path.with_extension("toml.new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&new, path).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_must_be_loaded_again_and_be_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("credentials.toml");
        assert_eq!(Credentials::load(&path).unwrap(), Credentials::default());
        let mut credentials = Credentials { current: Some("http://a:1".into()), ..Credentials::default() };
        credentials.servers.insert("http://a:1".into(), Server { token: "berth_x".into() });
        credentials.save(&path).unwrap();
        credentials.save(&path).unwrap();
        assert_eq!(Credentials::load(&path).unwrap(), credentials);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_secret_must_not_be_printed_by_debug() {
        assert!(!format!("{:?}", Server { token: "berth_x".into() }).contains("berth_x"));
    }

    #[test]
    fn a_server_must_have_one_key_however_it_is_written() {
        for url in ["http://a:80/", "http://a", "http://A/git/x.git"] {
            assert_eq!(server_key(&url.parse().unwrap()), "http://a");
        }
    }
}

//! The agent's configuration file: one TOML document, read once at start and checked whole.
//! Whether the installation id and the address block can be had is for `installation` and `network` to say.
//! What is decided per instance is in the spec, not here; what derives from the installation id is in `installation`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use berth_wire::id::HostId;
use secrecy::SecretString;
use serde::Deserialize;

/// Everything `berth-agent serve` needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What everything machine-wide derives from: cgroup parent, address block, nft table. `default` on a real machine.
    #[serde(default = "default_installation")]
    pub installation: String,
    /// Where the agent keeps its state: ledger, journal, layers, instances' roots, logs. Made 0700 if absent.
    pub data_dir: PathBuf,
    /// The control plane's base URL, e.g. `https://berth.example.com`.
    pub control_plane: String,
    /// Who this host is; the control plane decides by the token, this only guards the ledger against another host's spec.
    pub host_id: HostId,
    /// A file that holds the host's token and nothing else.
    pub token_file: PathBuf,
    /// On pure cgroup v2, the group that the service manager delegated for containers, relative to the mount,
    /// e.g. `berth.slice/berth-containers.service`. By default the agent's own if it was delegated, else the root.
    pub cgroup_base: Option<PathBuf>,
    /// The launcher's directory (with `launcher.sock`).
    pub launcher_dir: PathBuf,
    /// The edge's Unix socket.
    pub edge_socket: PathBuf,
    /// Where `/metrics` listens. Port 0 takes a free one; the actual address is written to `data_dir/metrics.addr`.
    #[serde(default = "default_metrics_listen")]
    pub metrics_listen: SocketAddr,
    /// If given, `/metrics` wants `Authorization: Bearer` with this file's content.
    pub metrics_token_file: Option<PathBuf>,
    /// Size of the file system that holds the instances' roots and the image layers, in bytes; preallocated.
    #[serde(default = "default_pool_bytes")]
    pub pool_bytes: u64,
    /// What builds get.
    #[serde(default)]
    pub build: BuildConfig,
    /// What the containers' network is like.
    #[serde(default)]
    pub network: NetworkConfig,
    /// What idle instances' memory is given back to.
    #[serde(default)]
    pub idle: IdleConfig,
}

/// What becomes of idle instances' memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdleConfig {
    /// Where their own pages go.
    pub swap: IdleSwap,
}

/// Where idle instances' own pages go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleSwap {
    /// Nowhere: only page cache is given back. The machine's swap is left alone.
    #[default]
    None,
    /// Into compressed swap in memory: a zram device that the agent makes, and removes on teardown. Half of the machine's memory at most
    /// goes in. It is swap like any other: the rest of the machine may use it, too.
    Zram,
}

/// What builds get from the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BuildConfig {
    /// The directory with the packs.
    pub packs_dir: Option<PathBuf>,
    /// A PEM file that build containers trust, for networks with a proxy that re-signs.
    pub ca_bundle: Option<PathBuf>,
    /// Environment of every build step, e.g. where a mirror of a package index is.
    pub env: BTreeMap<String, String>,
}

/// What the containers' network is like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// The block that instances' addresses come from, e.g. `198.18.0.0/16`; by default it derives from the installation id.
    pub block: Option<String>,
    /// Name servers that containers' questions are forwarded to; by default those of the host.
    pub dns_upstream: Option<Vec<IpAddr>>,
}

/// 8 GiB: sixteen instances that fill half of their default disk quota; an operator of a real machine sets more.
const POOL_BYTES_DEFAULT: u64 = 8 << 30;

/// Below this btrfs itself (two copies of its metadata) leaves no room for one base image.
const POOL_BYTES_MIN: u64 = 512 << 20;

fn default_installation() -> String {
    "default".to_owned()
}

fn default_metrics_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 9_320))
}

fn default_pool_bytes() -> u64 {
    POOL_BYTES_DEFAULT
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error(
        "could not read {what} {path}: {source}; check the path and that it belongs to the user running the agent"
    )]
    Unreadable {
        /// Which file, in words.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The TOML is not what the agent expects.
    #[error("{path} is not a valid configuration: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected.
        problem: String,
    },
    /// One value cannot work.
    #[error("{path}: {key}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong and how to do it right.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Unreadable, malformed, or a value that cannot work; the message names file and key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            what: "the configuration",
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Checks the text of a configuration; `path` is for messages only.
    ///
    /// # Errors
    /// Malformed, or a value that cannot work.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| ConfigError::Malformed {
            path: path.to_owned(),
            problem: e.to_string().trim_end().to_owned(),
        })?;
        let invalid =
            |key, problem: String| Err(ConfigError::Invalid { path: path.to_owned(), key, problem });
        match reqwest::Url::parse(&config.control_plane) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
            _ => {
                let given = &config.control_plane;
                return invalid("control_plane", format!("{given:?} is not an http:// or https:// URL"));
            }
        }
        for (key, value) in [
            ("data_dir", &config.data_dir),
            ("launcher_dir", &config.launcher_dir),
            ("edge_socket", &config.edge_socket),
            ("token_file", &config.token_file),
        ] {
            if !value.is_absolute() {
                return invalid(key, format!("{} must be an absolute path", value.display()));
            }
        }
        let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
        if let Some(base) = config.cgroup_base.as_deref().filter(|base| !base.components().all(plain)) {
            let given = base.display();
            return invalid(
                "cgroup_base",
                format!("{given} must be relative to the cgroup2 mount, without `..`"),
            );
        }
        if config.pool_bytes < POOL_BYTES_MIN {
            return invalid(
                "pool_bytes",
                format!("{} is too small; at least {POOL_BYTES_MIN}", config.pool_bytes),
            );
        }
        Ok(config)
    }

    /// The host's token.
    ///
    /// # Errors
    /// The file cannot be read or is empty.
    pub fn token(&self) -> Result<SecretString, ConfigError> {
        secret_from(&self.token_file, "token_file", "the host's token")
    }

    /// The token that `/metrics` wants, if it wants one.
    ///
    /// # Errors
    /// The file cannot be read or is empty.
    pub fn metrics_token(&self) -> Result<Option<SecretString>, ConfigError> {
        let read = |path| secret_from(path, "metrics_token_file", "the metrics token");
        self.metrics_token_file.as_deref().map(read).transpose()
    }
}

fn secret_from(path: &Path, key: &'static str, what: &'static str) -> Result<SecretString, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })?;
    let token = text.trim();
    if token.is_empty() {
        return Err(ConfigError::Invalid { path: path.to_owned(), key, problem: format!("{what} is empty") });
    }
    Ok(SecretString::from(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        installation = "t-a"
        data_dir = "/var/lib/berth/agent"
        control_plane = "http://127.0.0.1:8080"
        host_id = "01980000-0000-7000-8000-000000000001"
        token_file = "/etc/berth/host.token"
        launcher_dir = "/var/lib/berth/launcher"
        edge_socket = "/var/lib/berth/edge/edge.sock"
        metrics_listen = "127.0.0.1:0"
        pool_bytes = 1073741824
        [build]
        packs_dir = "/usr/share/berth/packs"
        env = { PIP_INDEX_URL = "http://mirror/simple" }
        [network]
        dns_upstream = ["127.0.0.53"]
    "#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("agent.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_complete_file_must_be_understood() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.build.env["PIP_INDEX_URL"], "http://mirror/simple");
        assert_eq!(config.metrics_listen.port(), 0);
        assert_eq!(config.network.dns_upstream.as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn a_misspelt_key_must_be_named_with_its_line() {
        let error = parse(&GOOD.replace("pool_bytes", "pool_byte")).unwrap_err();
        assert!(error.contains("pool_byte") && error.contains("agent.toml"), "{error}");
    }

    #[test]
    fn values_that_cannot_work_must_be_refused_with_the_key() {
        for (from, to, key) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "control_plane"),
            ("\"/var/lib/berth/agent\"", "\"agent\"", "data_dir"),
            ("1073741824", "1000", "pool_bytes"),
            ("[network]", "[idle]\nswap = \"disk\"\n[network]", "swap"),
            ("pool_bytes", "cgroup_base = \"../x\"\n        pool_bytes", "cgroup_base"),
        ] {
            let error = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn an_empty_token_file_must_be_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = Config { token_file: file.path().to_owned(), ..parse(GOOD).unwrap() };
        assert!(config.token().unwrap_err().to_string().contains("empty"));
    }
}

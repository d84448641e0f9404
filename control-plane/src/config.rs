//! What `berthd` is told when it starts, and the numbers that nobody has wanted to change yet. No I/O.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use berth_wire::name::{AppName, Domain, InvalidName};
use berth_wire::quota::{Bounds, MIB, Quota};

/// What `berthd serve` was told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory: store, git repositories, blobs, build logs.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// How others reach this process, without a trailing slash: `http://127.0.0.1:7000`.
    pub public_url: String,
    /// How the edge is reached, e.g. `http://localhost:8080`: an app answers at `http://NAME.localhost:8080/`.
    pub apps_url: AppsUrl,
    /// What one build may use on a host.
    pub build_quota: Quota,
    /// The longest a build may take, in seconds: a cold install of a large dependency tree takes minutes, not an hour.
    pub build_seconds_max: u32,
    /// The longest a `release:` command may take, in seconds.
    pub release_command_seconds_max: u32,
    /// Most bytes of one push's pack.
    pub push_bytes_max: u64,
}

/// Where apps answer: a scheme, a parent domain and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppsUrl {
    scheme: String,
    domain: String,
    /// `:8080`, or nothing.
    port: String,
}

/// The text is no URL of the form `http://DOMAIN[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not where apps can answer: expected http://DOMAIN or http://DOMAIN:PORT")]
pub struct InvalidAppsUrl(String);

impl std::str::FromStr for AppsUrl {
    type Err = InvalidAppsUrl;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAppsUrl(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        if !matches!(scheme, "http" | "https") {
            return Err(invalid());
        }
        let rest = rest.trim_end_matches('/');
        let (domain, port) = match rest.rsplit_once(':') {
            Some((domain, port)) => {
                port.parse::<u16>().map_err(|_| invalid())?;
                (domain, format!(":{port}"))
            }
            None => (rest, String::new()),
        };
        domain.parse::<Domain>().map_err(|_| invalid())?;
        Ok(Self { scheme: scheme.to_owned(), domain: domain.to_owned(), port })
    }
}

impl AppsUrl {
    /// The domain that an app gets by itself.
    ///
    /// # Errors
    /// The name and the parent domain together are longer than a domain may be.
    pub fn domain(&self, app: &AppName) -> Result<Domain, InvalidName> {
        format!("{app}.{}", self.domain).parse()
    }

    /// Where an app answers.
    pub fn url(&self, app: &AppName) -> String {
        format!("{}://{app}.{}{}/", self.scheme, self.domain, self.port)
    }
}

impl Config {
    /// The configuration with everything else at its default.
    pub fn new(data: &Path, listen: SocketAddr, public_url: &str, apps_url: AppsUrl) -> Self {
        Self {
            data: data.to_owned(),
            listen,
            public_url: public_url.trim_end_matches('/').to_owned(),
            apps_url,
            build_quota: Quota {
                cpu_millis: Bounds::new(100, 2_000),
                memory_bytes: Bounds::new(512 * MIB, 2_048 * MIB),
                pids: Bounds::new(64, 512),
                disk_bytes: Bounds::new(256 * MIB, 4_096 * MIB),
                log_lines_per_second: Bounds::new(100, 10_000),
                ..Quota::default()
            },
            build_seconds_max: 15 * 60,
            release_command_seconds_max: 10 * 60,
            push_bytes_max: 1 << 30,
        }
    }

    /// Where to push an app.
    pub fn git_url(&self, app: &AppName) -> String {
        format!("{}/git/{app}.git", self.public_url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_must_answer_below_the_parent_domain() {
        let url: AppsUrl = "http://localhost:8080".parse().unwrap();
        let app: AppName = "shop".parse().unwrap();
        assert_eq!(url.url(&app), "http://shop.localhost:8080/");
        assert_eq!(url.domain(&app).unwrap().as_str(), "shop.localhost");
        for bad in ["localhost:8080", "ftp://x", "http://", "http://a b", "http://x:99999"] {
            assert!(bad.parse::<AppsUrl>().is_err(), "{bad}");
        }
    }
}

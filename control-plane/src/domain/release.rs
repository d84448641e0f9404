//! Releases: image + config vars + formation, immutable. Code, config, scale, restart and rollback all make one, by the
//! same rule: take the content of the release the app stands on, change one thing, roll it out.
//!
//! ```text
//!              runs_command                 every instance ready, old ones drained
//!   (made) ───────────────> Releasing ──> Rolling ──────────────────────────────> Current ──> Superseded
//!      └────────────────────────────────────^ │            │                         │
//!                                             │            └ a newer one was made ─> Superseded (never served)
//!                                             └ did not come up ─> Failed <──────────┘ crashed in the watch window
//! ```

use std::collections::BTreeMap;

use berth_wire::api::ReleaseStatus;
use berth_wire::id::{AppId, BuildId};
use berth_wire::image::{AppManifest, ImageRef};
use berth_wire::name::{ConfigKey, ProcessType};
use berth_wire::report::Trouble;
use jiff::Timestamp;

use super::formation::{Formation, adopt};

/// Config vars.
pub type ConfigVars = BTreeMap<ConfigKey, String>;

/// Longest value of a config var, in bytes: Heroku's limit, and well below what execve takes for one string (128 KiB).
pub const CONFIG_VALUE_BYTES_MAX: usize = 32 * 1024;

/// Most bytes of all keys and values together: fits execve's argument space (a quarter of an 8 MiB stack) many times.
pub const CONFIG_BYTES_MAX: usize = 256 * 1024;

/// Who makes the releases of automatic rollbacks.
pub const AUTOMATIC: &str = "berth";

/// What a release runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The image.
    pub image: ImageRef,
    /// What is in it.
    pub manifest: AppManifest,
    /// The commit it was built from.
    pub commit: Option<String>,
    /// The build that made it.
    pub build: Option<BuildId>,
    /// Config vars.
    pub config: ConfigVars,
    /// How many of what.
    pub formation: Formation,
    /// Another with each restart: the same content with another nonce is another set of instances.
    pub restart_nonce: u64,
}

impl Content {
    /// The process types that have instances, and how many.
    pub fn running(&self) -> Vec<(&ProcessType, u32)> {
        let counts = self.formation.iter().map(|(process, scale)| (process, scale.count));
        counts
            .filter(|(process, count)| *count > 0 && self.manifest.processes.contains_key(*process))
            .collect()
    }
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Whose.
    pub app: AppId,
    /// The `5` of `v5`.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it is for.
    pub description: String,
    /// Who made it.
    pub by: String,
    /// Where it stands.
    pub status: ReleaseStatus,
    /// When it began to serve.
    pub switched_at: Option<Timestamp>,
    /// Why it failed, or what it waits for.
    pub trouble: Option<Trouble>,
    /// What it runs.
    pub content: Content,
    /// Whether the image's `release:` command runs before the switch.
    pub runs_command: bool,
}

/// What changes from the release that an app stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// A build made a new image.
    Deploy {
        /// The image.
        image: ImageRef,
        /// What is in it.
        manifest: AppManifest,
        /// The commit.
        commit: Option<String>,
        /// The build.
        build: Option<BuildId>,
    },
    /// Other config vars.
    Config {
        /// All of them.
        config: ConfigVars,
        /// `Set DATABASE_URL`.
        description: String,
    },
    /// Another formation.
    Scale {
        /// All of it.
        formation: Formation,
        /// `Scale web to 3`.
        description: String,
    },
    /// The same, anew.
    Restart {
        /// Unlike that of every release before.
        nonce: u64,
    },
    /// What an earlier release ran. A person's rollback keeps the present formation: scaling is not undone by a
    /// rollback of code. An automatic one does not, as the formation may be what broke it.
    Rollback {
        /// Which.
        to: u64,
        /// What it ran.
        content: Box<Content>,
        /// Whether Berth decided it.
        automatic: bool,
    },
}

/// A release to be made: its number and time are the store's and the clock's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it is for.
    pub description: String,
    /// What it runs.
    pub content: Content,
    /// Where it starts.
    pub status: ReleaseStatus,
    /// Whether the `release:` command runs.
    pub runs_command: bool,
}

/// What an app stands on before its first release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beginnings {
    /// Config vars set so far.
    pub config: ConfigVars,
    /// Formation chosen so far.
    pub formation: Formation,
}

/// Drafts a release. `base` is the content of the release the app stands on ([`head`]).
/// None if the change needs an image and there is none.
pub fn draft(why: Why, base: Option<&Content>, beginnings: &Beginnings) -> Option<Draft> {
    let (description, content, wants_command) = match why {
        Why::Deploy { image, manifest, commit, build } => {
            let (config, formation) = match base {
                Some(base) => (&base.config, &base.formation),
                None => (&beginnings.config, &beginnings.formation),
            };
            let formation = adopt(formation, &manifest);
            let description = match &commit {
                Some(commit) => format!("Deploy {}", commit.get(..7).unwrap_or(commit)),
                None => "Deploy an upload".to_owned(),
            };
            let restart_nonce = base.map_or(0, |base| base.restart_nonce);
            let content =
                Content { image, manifest, commit, build, config: config.clone(), formation, restart_nonce };
            (description, content, true)
        }
        Why::Config { config, description } => (description, Content { config, ..base?.clone() }, true),
        Why::Scale { formation, description } => (description, Content { formation, ..base?.clone() }, false),
        Why::Restart { nonce } => {
            ("Restart".to_owned(), Content { restart_nonce: nonce, ..base?.clone() }, false)
        }
        Why::Rollback { to, content, automatic } => {
            let description = format!("Rollback to v{to}");
            if automatic {
                (description, *content, false)
            } else {
                let formation = adopt(&base?.formation, &content.manifest);
                (description, Content { formation, ..*content }, true)
            }
        }
    };
    let runs_command = wants_command && content.manifest.processes.contains_key(&ProcessType::release());
    let status = if runs_command { ReleaseStatus::Releasing } else { ReleaseStatus::Rolling };
    Some(Draft { description, content, status, runs_command })
}

/// The release that a change starts from: the one on its way, else the one that serves, else the newest (all failed:
/// then a config var that was missing can still be set). A failed release is undone with everything in it, its config
/// vars and formation included, as if it had not been asked for.
pub fn head(releases: &[Release]) -> Option<&Release> {
    let newest = |wanted: &[ReleaseStatus]| {
        releases.iter().filter(|r| wanted.contains(&r.status)).max_by_key(|r| r.version)
    };
    newest(&[ReleaseStatus::Releasing, ReleaseStatus::Rolling])
        .or_else(|| newest(&[ReleaseStatus::Current]))
        .or_else(|| releases.iter().max_by_key(|r| r.version))
}

/// Why config vars were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// One value is too long.
    #[error("the value of {key} has {bytes} bytes; at most {CONFIG_VALUE_BYTES_MAX} fit into a config var")]
    Value {
        /// Whose.
        key: ConfigKey,
        /// How long it is.
        bytes: usize,
    },
    /// All together are too long.
    #[error("the config vars have {bytes} bytes together; at most {CONFIG_BYTES_MAX} fit")]
    Total {
        /// How long they are.
        bytes: usize,
    },
    /// A value that no environment can hold.
    #[error("the value of {key} has a NUL byte, which no environment variable can hold")]
    Nul {
        /// Whose.
        key: ConfigKey,
    },
    /// A key to be unset is not set.
    #[error("{key} is not set, so it cannot be unset; `berth config` shows what is")]
    NotSet {
        /// Which.
        key: ConfigKey,
    },
    /// Set and unset at once.
    #[error("{key} is both set and unset in one change; choose one")]
    Both {
        /// Which.
        key: ConfigKey,
    },
}

/// The config vars after a change, and a description of it that names no value; none if nothing changes.
///
/// # Errors
/// The first rule that is broken.
pub fn change_config(
    old: &ConfigVars,
    set: &ConfigVars,
    unset: &[ConfigKey],
) -> Result<Option<(ConfigVars, String)>, InvalidConfig> {
    let mut new = old.clone();
    for key in unset {
        if set.contains_key(key) {
            return Err(InvalidConfig::Both { key: key.clone() });
        }
        if new.remove(key).is_none() {
            return Err(InvalidConfig::NotSet { key: key.clone() });
        }
    }
    let mut changed = Vec::new();
    for (key, value) in set {
        if value.len() > CONFIG_VALUE_BYTES_MAX {
            return Err(InvalidConfig::Value { key: key.clone(), bytes: value.len() });
        }
        if value.contains('\0') {
            return Err(InvalidConfig::Nul { key: key.clone() });
        }
        if new.insert(key.clone(), value.clone()).as_ref() != Some(value) {
            changed.push(key);
        }
    }
    let bytes = new.iter().map(|(k, v)| k.as_str().len() + v.len()).sum();
    if bytes > CONFIG_BYTES_MAX {
        return Err(InvalidConfig::Total { bytes });
    }
    let list = |keys: &[&ConfigKey]| keys.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    if !changed.is_empty() {
        parts.push(format!("Set {}", list(&changed)));
    }
    if !unset.is_empty() {
        parts.push(format!("Unset {}", list(&unset.iter().collect::<Vec<_>>())));
    }
    Ok(if parts.is_empty() { None } else { Some((new, parts.join("; "))) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> ConfigVars {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_config_change_must_be_described_without_its_values() {
        let old = vars(&[("A", "1"), ("B", "2")]);
        let unset = ["B".parse().unwrap()];
        let (new, said) = change_config(&old, &vars(&[("KEY", "hunter2")]), &unset).unwrap().unwrap();
        assert_eq!(new, vars(&[("A", "1"), ("KEY", "hunter2")]));
        assert_eq!(said, "Set KEY; Unset B");
        assert_eq!(change_config(&old, &vars(&[("A", "1")]), &[]).unwrap(), None);
    }

    #[test]
    fn config_that_no_process_could_get_must_be_refused() {
        let refused =
            |set: &ConfigVars, unset: &[ConfigKey]| change_config(&vars(&[]), set, unset).unwrap_err();
        let long = "x".repeat(CONFIG_VALUE_BYTES_MAX + 1);
        assert!(matches!(refused(&vars(&[("A", &long)]), &[]), InvalidConfig::Value { .. }));
        assert!(matches!(refused(&vars(&[("A", "a\0b")]), &[]), InvalidConfig::Nul { .. }));
        assert!(matches!(refused(&vars(&[]), &["A".parse().unwrap()]), InvalidConfig::NotSet { .. }));
        let both = refused(&vars(&[("A", "1")]), &["A".parse().unwrap()]);
        assert!(matches!(both, InvalidConfig::Both { .. }));
        let most = "x".repeat(CONFIG_VALUE_BYTES_MAX);
        let many: ConfigVars = (0..9).map(|i| (format!("A{i}").parse().unwrap(), most.clone())).collect();
        assert!(matches!(refused(&many, &[]), InvalidConfig::Total { .. }));
    }

    #[test]
    fn a_change_that_needs_an_image_must_wait_for_one() {
        assert_eq!(draft(Why::Restart { nonce: 1 }, None, &Beginnings::default()), None);
    }
}

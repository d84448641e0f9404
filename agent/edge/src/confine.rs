//! What the edge gives up before it reads the first byte of a stranger: new privileges, files outside its directory,
//! binding more TCP ports. And the one thing it asks for: descriptors.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Confinement failed where it should have worked.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// no_new_privs was refused.
    #[error("could not set no_new_privs: {0}")]
    NoNewPrivileges(nix::Error),
    /// Landlock was refused.
    #[error("could not confine the edge to its directory with Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// The directory could not be opened.
    #[error("could not open the edge's directory for Landlock: {0}")]
    Directory(#[from] landlock::PathFdError),
}

/// Confines this process, and every thread started from now on, to `dir`. Says what the kernel could not do.
///
/// # Errors
/// When the kernel has a feature and refuses it.
pub fn confine(dir: &Path) -> Result<(), ConfineError> {
    prctl::set_no_new_privs().map_err(ConfineError::NoNewPrivileges)?;
    let files = AccessFs::from_all(ABI::V5);
    let status = Ruleset::default()
        .handle_access(files)?
        .handle_access(AccessNet::BindTcp)?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new(dir)?, files))?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => {}
        RulesetStatus::PartiallyEnforced => {
            tracing::info!("this kernel's Landlock is older: files are confined, other rights partly");
        }
        RulesetStatus::NotEnforced => {
            tracing::warn!("this kernel has no Landlock: the edge is not confined to its directory");
        }
    }
    if nix::unistd::geteuid().is_root() {
        tracing::warn!("the edge runs as root; it needs no privilege, start it as an ordinary user");
    }
    Ok(())
}

/// Raises the limit of open descriptors as far as an ordinary user may. Returns it.
pub fn raise_descriptors() -> u64 {
    let limits = getrlimit(Resource::RLIMIT_NOFILE);
    let Ok((soft, hard)) = limits else { return 1_024 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, soft, hard, "could not raise the limit of open descriptors");
            soft
        }
    }
}

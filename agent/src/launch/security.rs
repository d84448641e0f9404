//! The host's security module: which one is on, what a container is called in it, and that it knows Berth's policy. What that allows
//! is in `deploy/apparmor`.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use berth_wire::launch::SecurityLabel;

/// The AppArmor profile's name. One for the machine: what it allows depends on no installation.
pub const PROFILE: &str = "berth-container";
/// What to do when AppArmor does not know the profile.
pub const NOT_LOADED: &str = "AppArmor is on and does not know the profile berth-container; install the package apparmor and restart \
    berth-agent, or run apparmor_parser --replace deploy/apparmor/berth-container";

/// The profile as shipped, so that the agent can load it wherever it runs.
const SHIPPED: &str = include_str!("../../../deploy/apparmor/berth-container");

/// A security module that is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityModule {
    /// AppArmor.
    AppArmor,
    /// SELinux.
    Selinux,
}

/// Which one is on.
pub fn security_module() -> Option<SecurityModule> {
    static FOUND: OnceLock<Option<SecurityModule>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        match fs::read_to_string("/sys/module/apparmor/parameters/enabled") {
            Ok(enabled) if enabled.trim() == "Y" => return Some(SecurityModule::AppArmor),
            // What cannot be read may be on: a start then fails at the label instead of going without.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Some(SecurityModule::AppArmor);
            }
            Ok(_) | Err(_) => {}
        }
        Path::new("/sys/fs/selinux/enforce").exists().then_some(SecurityModule::Selinux)
    })
}

/// What the processes of a container are called. Berth has no policy for SELinux.
pub fn security_label() -> Option<SecurityLabel> {
    let apparmor = security_module() == Some(SecurityModule::AppArmor);
    apparmor.then(|| SecurityLabel::AppArmor { profile: PROFILE.to_owned() })
}

/// The mode that the profile is loaded in (`enforce`); none if it is not.
pub fn profile_mode() -> Option<String> {
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").ok()?;
    mode_in(&loaded)
}

/// A line is `NAME (MODE)`.
fn mode_in(loaded: &str) -> Option<String> {
    let line = loaded.lines().find(|line| line.split(' ').next() == Some(PROFILE))?;
    Some(line.split_once('(')?.1.trim_end_matches(')').to_owned())
}

/// Has AppArmor know the profile, if it is on and does not yet: one that the operator loaded stays as it is.
///
/// # Errors
/// No apparmor_parser, or its refusal. Containers do not start then.
pub fn load_security_policy() -> io::Result<()> {
    if security_module() != Some(SecurityModule::AppArmor) || profile_mode().is_some() {
        return Ok(());
    }
    let mut parser = Command::new("apparmor_parser")
        .args(["--replace", "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("apparmor_parser: {error}; {NOT_LOADED}")))?;
    if let Some(mut input) = parser.stdin.take() {
        input.write_all(SHIPPED.as_bytes())?;
    }
    let output = parser.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("apparmor_parser does not load {PROFILE}: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_must_be_found_by_its_whole_name() {
        let loaded = "berth-container-old (enforce)\nberth-container (complain)\n";
        assert_eq!(mode_in(loaded).as_deref(), Some("complain"));
        assert_eq!(mode_in("docker-default (enforce)\n"), None);
    }
}

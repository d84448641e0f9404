//! The host's security module: which one is on, what a container is called in it, and that it knows Berth's policy. What the policies
//! allow is in `deploy/apparmor` and `deploy/selinux`.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use berth_wire::launch::SecurityLabel;

/// The AppArmor profile's name. One for the machine: what it allows depends on no installation.
pub const PROFILE: &str = "berth-container";
/// The SELinux type of a container's processes.
pub const SELINUX_TYPE: &str = "berth_container_t";
/// What to do when the module does not know its policy.
pub const NOT_LOADED: &str = "the host's security module does not know Berth's policy; with AppArmor, install the package apparmor and \
    restart berth-agent, or run apparmor_parser --replace deploy/apparmor/berth-container; with SELinux, install deploy/selinux";

/// The profile as shipped, so that the agent can load it wherever it runs.
const SHIPPED: &str = include_str!("../../../deploy/apparmor/berth-container");
/// Categories of SELinux's usual policies: c0 to c1023.
const CATEGORIES: u32 = 1_024;

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
        let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if apparmor.is_ok_and(|enabled| enabled.trim() == "Y") {
            return Some(SecurityModule::AppArmor);
        }
        Path::new("/sys/fs/selinux/enforce").exists().then_some(SecurityModule::Selinux)
    })
}

/// What the processes of the container with these ids are called.
pub fn security_label(uid_base: u32) -> Option<SecurityLabel> {
    Some(match security_module()? {
        SecurityModule::AppArmor => SecurityLabel::AppArmor { profile: PROFILE.to_owned() },
        SecurityModule::Selinux => SecurityLabel::Selinux { context: context(uid_base) },
    })
}

/// No two live containers have the same ids (in ranges of 65,536), so none have the same pair of categories either: there are 65,536
/// ranges at most and 523,776 pairs.
fn context(uid_base: u32) -> String {
    let (mut rest, mut first) = (uid_base >> 16, 0);
    while rest >= CATEGORIES - 1 - first {
        rest -= CATEGORIES - 1 - first;
        first += 1;
    }
    format!("system_u:system_r:{SELINUX_TYPE}:s0:c{first},c{}", first + 1 + rest)
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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_containers_must_have_the_same_categories() {
        let all: BTreeSet<_> = (0..=u32::from(u16::MAX)).map(|range| context(range << 16)).collect();
        assert_eq!(all.len(), 65_536);
        assert!(context(0).ends_with(":s0:c0,c1"));
        assert!(context(1_022 << 16).ends_with(":s0:c0,c1023"));
        assert!(context(1_023 << 16).ends_with(":s0:c1,c2"));
    }

    #[test]
    fn a_profile_must_be_found_by_its_whole_name() {
        let loaded = "berth-container-old (enforce)\nberth-container (complain)\n";
        assert_eq!(mode_in(loaded).as_deref(), Some("complain"));
        assert_eq!(mode_in("docker-default (enforce)\n"), None);
    }
}

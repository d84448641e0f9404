//! The kernel: its version, control groups, file systems, security modules.

use std::path::Path;

use berth_wire::code::Code;

use super::programs::DIRECTORIES;
use super::{Finding, content};
use crate::cgroup;
use crate::launch::{self, SecurityModule};

/// Debian 12's: overlayfs on idmapped layers (5.19), cgroup.kill (5.14), Landlock's rename rule (5.19).
const LEAST: (u32, u32) = (6, 1);
/// Simple quotas.
const CHEAP_QUOTAS: (u32, u32) = (6, 7);

pub(super) fn root() -> Finding {
    if nix::unistd::geteuid().is_root() {
        Finding::good("user", "root")
    } else {
        Finding::fatal(
            "user",
            Code::D10,
            "the agent needs to be root; start it with sudo or from its systemd unit",
        )
    }
}

pub(super) fn checks() -> Vec<Finding> {
    let release = content("/proc/sys/kernel/osrelease").unwrap_or_default();
    let filesystems = content("/proc/filesystems").unwrap_or_default();
    let mut findings = vec![version(&release), control_groups()];
    for name in ["overlay", "btrfs"] {
        findings.push(file_system(name, &filesystems, &release));
    }
    findings.extend([quotas(), idle_swap()]);
    findings.extend([loop_devices(), user_namespaces(), landlock(), access_control()]);
    findings
}

fn version(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Finding::warning("kernel", Code::D11, format!("version {release:?} cannot be understood"));
    };
    if (major, minor) < LEAST {
        let sentence = format!("{release} is too old; Berth needs {}.{} or newer", LEAST.0, LEAST.1);
        return Finding::fatal("kernel", Code::D11, sentence);
    }
    if (major, minor) < CHEAP_QUOTAS {
        let sentence =
            format!("{release} has no simple btrfs quotas (6.7); disk quotas cost time at every commit");
        return Finding::warning("kernel", Code::D11, sentence);
    }
    Finding::good("kernel", release)
}

fn control_groups() -> Finding {
    match cgroup::mode() {
        Ok(cgroup::Mode::Unified) => Finding::good("control groups", "v2"),
        Ok(cgroup::Mode::Hybrid) => Finding::warning(
            "control groups",
            Code::D11,
            "hybrid: memory floors protect nothing under pressure, an OOM ends the whole container only once the agent \
             sees it, and there is no memory.high; boot with systemd.unified_cgroup_hierarchy=1 for v2",
        ),
        Err(error) => Finding::fatal("control groups", Code::D11, error.to_string()),
    }
}

/// What of a quota is not enforced, field by field; egress is looked at where the network is.
fn quotas() -> Finding {
    let found = cgroup::unenforced().unwrap_or_default();
    let lost: Vec<String> = found.iter().map(|(field, reason)| format!("{field} ({reason})")).collect();
    if lost.is_empty() {
        return Finding::good("quotas", "all enforced");
    }
    let sentence = format!("not, or not wholly, enforced here: {}", lost.join("; "));
    Finding::warning("quotas", Code::D11, sentence)
}

/// Whether `[idle] swap = "zram"` can be chosen.
fn idle_swap() -> Finding {
    if crate::disk::zram::is_possible() {
        return Finding::good("swap for idle instances", "zram can be made");
    }
    let sentence = "no zram: idle instances keep all memory that is not page cache; run modprobe zram before choosing \
        [idle] swap = \"zram\"";
    Finding::warning("swap for idle instances", Code::D11, sentence)
}

fn file_system(name: &'static str, filesystems: &str, release: &str) -> Finding {
    let subject = if name == "overlay" { "overlayfs" } else { "btrfs" };
    if filesystems.lines().any(|line| line.split_whitespace().next_back() == Some(name)) {
        return Finding::good(subject, "there");
    }
    let modules = Path::new("/lib/modules").join(release);
    let loadable = ["modules.dep", "modules.builtin"]
        .iter()
        .any(|list| content(modules.join(list)).is_some_and(|text| text.contains(&format!("/{name}.ko"))));
    if loadable {
        return Finding::good(subject, "a module, loaded when it is used");
    }
    let sentence = format!("the kernel has no {name}; install a kernel with it, or its modules package");
    Finding::fatal(subject, Code::D11, sentence)
}

fn loop_devices() -> Finding {
    if Path::new("/dev/loop-control").exists() {
        Finding::good("loop devices", "there")
    } else {
        Finding::fatal("loop devices", Code::D11, "/dev/loop-control is missing; run modprobe loop")
    }
}

fn user_namespaces() -> Finding {
    let subject = "user namespaces";
    let most = content("/proc/sys/user/max_user_namespaces").and_then(|text| text.parse::<u64>().ok());
    match most {
        Some(most @ 1..1_100) => Finding::warning(
            subject,
            Code::D17,
            format!("user.max_user_namespaces is {most}, one per container; set it to 10000 with sysctl"),
        ),
        Some(1..) => Finding::good(subject, "there"),
        _ => Finding::fatal(
            subject,
            Code::D11,
            "switched off; set user.max_user_namespaces to 10000 with sysctl",
        ),
    }
}

fn landlock() -> Finding {
    // SAFETY: with a null attribute and LANDLOCK_CREATE_RULESET_VERSION (1) the call only returns a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1) };
    if version > 0 {
        return Finding::good("Landlock", format!("version {version}"));
    }
    let sentence = "missing: the unpacker of images and the edge are confined by user namespace only; \
        add landlock to the lsm= list on the kernel's command line";
    Finding::warning("Landlock", Code::D11, sentence)
}

/// Which security module holds the containers, and whether it knows its policy.
fn access_control() -> Finding {
    let subject = "access control";
    match launch::security_module() {
        Some(SecurityModule::AppArmor) => apparmor(launch::profile_mode().as_deref(), parser_is_there()),
        Some(SecurityModule::Selinux) => Finding::warning(
            subject,
            Code::D11,
            "SELinux is on, and Berth has no policy for it: containers run in the launcher's domain, with no second fence \
             between them; AppArmor is supported",
        ),
        None => Finding::warning(
            subject,
            Code::D11,
            "neither AppArmor nor SELinux is on: containers have no second fence behind their namespaces and seccomp \
             filter; enable one in the distribution's way",
        ),
    }
}

fn apparmor(mode: Option<&str>, parser: bool) -> Finding {
    let (subject, profile) = ("access control", launch::PROFILE);
    match (mode, parser) {
        (Some("enforce"), _) => Finding::good(subject, format!("AppArmor: the profile {profile} is loaded")),
        (Some(mode), _) => {
            let sentence = format!(
                "AppArmor: the profile {profile} is in mode {mode} and denies nothing; run aa-enforce {profile}"
            );
            Finding::warning(subject, Code::D11, sentence)
        }
        (None, true) => {
            Finding::good(subject, format!("AppArmor: the agent loads the profile {profile} when it starts"))
        }
        (None, false) => {
            let sentence = format!("no container can start: {}", launch::NOT_LOADED);
            Finding::fatal(subject, Code::D11, sentence)
        }
    }
}

fn parser_is_there() -> bool {
    DIRECTORIES.iter().any(|directory| Path::new(directory).join("apparmor_parser").exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn kernels_must_be_told_apart_by_version() {
        let severity = |release| version(release).severity;
        assert_eq!(severity("5.15.0-91-generic"), Severity::Fatal);
        assert_eq!(severity("6.1.0-18-amd64"), Severity::Warning);
        assert_eq!(severity("6.12.6+deb13-cloud-amd64"), Severity::Good);
        assert_eq!(severity("7.0.0"), Severity::Good);
        assert_eq!(severity("mystery"), Severity::Warning);
    }

    #[test]
    fn a_missing_file_system_must_be_named() {
        assert_eq!(file_system("overlay", "nodev\toverlay\n\tbtrfs", "none").severity, Severity::Good);
        assert_eq!(file_system("btrfs", "nodev\toverlay", "none").severity, Severity::Fatal);
    }

    #[test]
    fn a_host_whose_containers_cannot_start_must_be_told_so() {
        assert_eq!(apparmor(Some("enforce"), true).severity, Severity::Good);
        assert_eq!(apparmor(Some("complain"), true).severity, Severity::Warning);
        assert_eq!(apparmor(None, true).severity, Severity::Good);
        let missing = apparmor(None, false);
        assert_eq!(missing.severity, Severity::Fatal);
        assert!(missing.sentence.contains("install the package apparmor"), "{missing}");
    }
}

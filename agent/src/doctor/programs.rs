//! The programs the agent starts.

use std::path::Path;

use berth_wire::code::Code;

use super::Finding;

/// Where they are looked for; the same list the agent starts them with.
pub(super) const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

pub(super) fn checks() -> Vec<Finding> {
    vec![program("nft", "nftables"), program("mkfs.btrfs", "btrfs-progs")]
}

fn program(name: &'static str, package: &str) -> Finding {
    match DIRECTORIES.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists()) {
        Some(path) => Finding::good(name, path.display().to_string()),
        None => Finding::fatal(name, Code::D15, format!("missing; install the package {package}")),
    }
}

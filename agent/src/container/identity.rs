//! The files that tell a container who it is: hostname, hosts, resolv.conf. They are a small layer of its own above the image's, not in
//! the upper: so nothing of them gets into a layer that a build makes, and a symbolic link in the image is covered, not followed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::network::Endpoint;

/// Writes the layer into a container's writable space; says where it is.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn write(scratch: &Path, hostname: &str, endpoint: Option<&Endpoint>) -> io::Result<PathBuf> {
    let layer = scratch.join("identity");
    let etc = layer.join("etc");
    fs::create_dir_all(&etc)?;
    fs::write(etc.join("hostname"), format!("{hostname}\n"))?;
    fs::write(etc.join("hosts"), hosts(hostname, endpoint))?;
    fs::write(etc.join("resolv.conf"), resolv_conf(endpoint))?;
    Ok(layer)
}

fn hosts(hostname: &str, endpoint: Option<&Endpoint>) -> String {
    let own = endpoint.map_or_else(|| "127.0.1.1".to_owned(), |endpoint| endpoint.address.to_string());
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{own} {hostname}\n")
}

/// The gateway answers (the agent's DNS server).
fn resolv_conf(endpoint: Option<&Endpoint>) -> String {
    endpoint.map_or_else(String::new, |endpoint| format!("nameserver {}\n", endpoint.gateway))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_container_must_find_its_name_and_its_nameserver() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint {
            address: Ipv4Addr::new(198, 18, 0, 5),
            gateway: Ipv4Addr::new(198, 18, 0, 1),
            interface: "x".into(),
        };
        let layer = write(dir.path(), "shop", Some(&endpoint)).unwrap();
        let read = |name: &str| fs::read_to_string(layer.join("etc").join(name)).unwrap();
        assert_eq!(read("hostname"), "shop\n");
        assert!(read("hosts").contains("198.18.0.5 shop\n"));
        assert_eq!(read("resolv.conf"), "nameserver 198.18.0.1\n");
    }
}

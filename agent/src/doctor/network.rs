//! The network: resolvers to forward to, and other firewalls that would stop containers' traffic.

use std::process::{Command, Stdio};

use berth_wire::code::Code;

use super::{Finding, content};
use crate::installation::INTERFACE_PREFIX_ALL;

pub(super) fn checks() -> Vec<Finding> {
    let mut findings = vec![resolvers(&content("/etc/resolv.conf").unwrap_or_default())];
    findings.extend(firewall());
    findings
}

fn resolvers(resolv_conf: &str) -> Finding {
    if resolv_conf.lines().any(|line| line.split_whitespace().next() == Some("nameserver")) {
        return Finding::good("resolvers", "in /etc/resolv.conf");
    }
    let sentence = "/etc/resolv.conf names none: containers resolve no names; set [network] dns_upstream";
    Finding::warning("resolvers", Code::D11, sentence)
}

/// Whether nf_tables answers, and whether somebody drops what is forwarded (Docker does, with iptables); only root may ask.
fn firewall() -> Option<Finding> {
    let output = Command::new("nft")
        .args(["list", "chains"])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    if !output.status.success() {
        let root = nix::unistd::geteuid().is_root();
        let sentence = "nft cannot list chains: the kernel has no nf_tables; install its modules package";
        return root.then(|| Finding::fatal("firewall", Code::D11, sentence));
    }
    Some(judge(&String::from_utf8_lossy(&output.stdout)))
}

fn judge(chains: &str) -> Finding {
    let mut table = "";
    for line in chains.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        }
        let foreign = !table.contains(" berth_");
        if foreign && line.contains("hook forward") && line.contains("policy drop") {
            let sentence = format!(
                "table {table} drops what is forwarded: containers reach nothing outside; let {INTERFACE_PREFIX_ALL}* \
                 through there (with Docker: iptables -I DOCKER-USER -i {INTERFACE_PREFIX_ALL}+ -j ACCEPT, and -o)"
            );
            return Finding::warning("firewall", Code::D11, sentence);
        }
    }
    Finding::good("firewall", "nothing else drops forwarded packets")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn a_foreign_forward_policy_must_be_noticed() {
        let docker = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n";
        assert_eq!(judge(docker).severity, Severity::Warning);
        assert!(judge(docker).sentence.contains("table ip filter"));
        assert_eq!(judge(&docker.replace("drop", "accept")).severity, Severity::Good);
    }

    #[test]
    fn no_resolver_must_be_noticed() {
        assert_eq!(resolvers("search x\n# nameserver 1.1.1.1").severity, Severity::Warning);
        assert_eq!(resolvers("nameserver 127.0.0.53").severity, Severity::Good);
    }
}

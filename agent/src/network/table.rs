//! The nft table: its text (pure) and putting it in place with `nft -f -`, in one transaction.
//!
//! There is one rule set for all containers and none per container: that a packet comes from the container it says is
//! the reverse path check (each address has a /32 route to its one interface).

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::NetworkError;
use crate::installation::{Block, INTERFACE_PREFIX_ALL};

const fn block(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Block {
    Block { base: std::net::Ipv4Addr::new(a, b, c, d), prefix }
}

/// What no container may reach, wherever the host is (IANA special-purpose registry): this network, private, carrier
/// NAT, loopback, link-local with the clouds' metadata service, protocol assignments, every Berth block, multicast, reserved.
pub(super) const DENIED: [Block; 11] = [
    block(0, 0, 0, 0, 8),
    block(10, 0, 0, 0, 8),
    block(100, 64, 0, 0, 10),
    block(127, 0, 0, 0, 8),
    block(169, 254, 0, 0, 16),
    block(172, 16, 0, 0, 12),
    block(192, 0, 0, 0, 24),
    block(192, 168, 0, 0, 16),
    block(198, 18, 0, 0, 15),
    block(224, 0, 0, 0, 4),
    block(240, 0, 0, 0, 4),
];

/// What one container may do to tables that the whole host shares. The kernel's table of connections holds 262,144 on a
/// machine with 8 GiB and more, and when it is full everybody's packets are dropped: a container's part is at most what
/// it has open, and 500 a second that stay for 120 s after they were closed.
const OPENED_PER_SECOND_MAX: u32 = 500;
const OPENED_BURST_MAX: u32 = 2_000;
const CONNECTED_MAX: u32 = 8_192;
/// Twice what the DNS server takes of one container: it sees who asks too much, and is not kept from the others by packets
/// that fill its socket.
const LOOKUPS_PER_SECOND_MAX: u32 = 2 * super::dns::QUERIES_PER_SECOND_MAX;
const LOOKUPS_BURST_MAX: u32 = 2 * super::dns::QUERIES_BURST_MAX;

/// What the table is made from.
#[derive(Debug)]
pub(super) struct Rules {
    pub table: String,
    pub prefix: String,
    pub block: Block,
    pub gateway: std::net::Ipv4Addr,
    pub denied: Vec<Block>,
    /// Interfaces on which Berth switched forwarding on: nothing but containers' traffic may use that.
    pub opened: Vec<String>,
}

impl Rules {
    /// The whole table, replacing an older one.
    ///
    /// Priorities: just before the usual ones, so that a drop here cannot be overtaken by somebody's accept; an accept here
    /// is final for this table only, so another firewall may still refuse.
    pub(super) fn text(&self) -> String {
        let Self { table, prefix, block, gateway, .. } = self;
        let denied: Vec<String> = self.denied.iter().map(ToString::to_string).collect();
        let denied = denied.join(", ");
        let opened: String = self
            .opened
            .iter()
            .map(|uplink| format!("    iifname \"{uplink}\" oifname != \"{INTERFACE_PREFIX_ALL}*\" drop\n"))
            .collect();
        format!(
            r#"table inet {table}
delete table inet {table}
table inet {table} {{
  set denied {{
    type ipv4_addr
    flags interval
    auto-merge
    elements = {{ {denied} }}
  }}
  set asking {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout 60s; }}
  set opening {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout 60s; }}
  set connected {{ type ipv4_addr; size 65535; flags dynamic; }}
  chain spoofed {{
    type filter hook prerouting priority raw - 10; policy accept;
    iifname != "{prefix}*" accept
    meta nfproto != ipv4 drop
    ip saddr != {block} drop
    fib saddr . iif oif missing drop
  }}
  chain to_host {{
    type filter hook input priority filter - 10; policy accept;
    iifname != "{prefix}*" accept
    ip daddr {gateway} udp dport 53 update @asking {{ ip saddr limit rate over {LOOKUPS_PER_SECOND_MAX}/second burst {LOOKUPS_BURST_MAX} packets }} drop
    ct state established,related accept
    ct state new update @opening {{ ip saddr limit rate over {OPENED_PER_SECOND_MAX}/second burst {OPENED_BURST_MAX} packets }} drop
    ip daddr {gateway} udp dport 53 accept
    ip daddr {gateway} tcp dport 53 accept
    drop
  }}
  chain through {{
    type filter hook forward priority filter - 10; policy accept;
    iifname "{prefix}*" jump outward
    oifname "{prefix}*" jump inward
{opened}  }}
  chain outward {{
    ct state invalid drop
    ip daddr @denied drop
    oifname "{INTERFACE_PREFIX_ALL}*" drop
    meta nfproto != ipv4 drop
    ct state new update @opening {{ ip saddr limit rate over {OPENED_PER_SECOND_MAX}/second burst {OPENED_BURST_MAX} packets }} drop
    ct state new add @connected {{ ip saddr ct count over {CONNECTED_MAX} }} drop
  }}
  chain inward {{
    ct state established,related accept
    drop
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat - 10; policy accept;
    ip saddr {block} oifname != "{INTERFACE_PREFIX_ALL}*" masquerade
  }}
}}
"#
        )
    }
}

/// Puts the text in place, all or nothing.
pub(super) async fn apply(text: &str) -> Result<(), NetworkError> {
    let failed = |error: std::io::Error| NetworkError::Nft(error.to_string());
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(NetworkError::Nft(said.lines().take(3).collect::<Vec<_>>().join("; ")))
}

/// Removes the table; no error if it is not there (declaring it first makes it so).
pub(super) async fn remove(table: &str) -> Result<(), NetworkError> {
    apply(&format!("table inet {table}\ndelete table inet {table}\n")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_must_deny_by_default() {
        let rules = Rules {
            table: "berth_x".into(),
            prefix: "bth01-".into(),
            block: block(198, 19, 0, 0, 22),
            gateway: std::net::Ipv4Addr::new(198, 19, 0, 1),
            denied: DENIED.to_vec(),
            opened: vec!["eth0".into()],
        };
        insta::assert_snapshot!(rules.text());
    }
}

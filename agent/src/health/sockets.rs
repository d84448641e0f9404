//! Who listens where inside a container: /proc/PID/net/tcp and tcp6, read from outside (proc_net_tcp.rst). Parsing only.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// `TCP_LISTEN` of include/net/tcp_states.h.
const LISTEN: &str = "0A";

/// Most bytes read of one table: 10,000 sockets of 150 bytes. A container with more is not diagnosed from the rest.
const TABLE_BYTES_MAX: u64 = 1_500_000;

/// Every listening TCP socket of the network namespace that `pid` is in.
///
/// # Errors
/// The process is gone.
pub fn listeners(pid: u32) -> std::io::Result<BTreeSet<SocketAddr>> {
    use std::io::Read;
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let path = Path::new("/proc").join(pid.to_string()).join("net").join(table);
        let mut text = String::new();
        match std::fs::File::open(path) {
            Ok(file) => file.take(TABLE_BYTES_MAX).read_to_string(&mut text)?,
            // A kernel without IPv6 has no tcp6.
            Err(e) if table == "tcp6" && e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        found.extend(parse(&text));
    }
    Ok(found)
}

/// The listening sockets of one table's text.
pub fn parse(text: &str) -> BTreeSet<SocketAddr> {
    let listener = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next()?;
        let state = columns.nth(1)?;
        (state == LISTEN).then(|| address(local)).flatten()
    };
    text.lines().skip(1).filter_map(listener).collect()
}

/// `0100007F:1F90`: each 32-bit word in the host's byte order, the port in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for word in ip.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31 1 0 100 0 0 10 0
   1: 00000000:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 32 1 0 100 0 0 10 0
   2: 020012C6:1388 010012C6:C350 01 00000000:00000000 00:00000000 00000000  1000        0 33 1 0 20 4 30 10 -1
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr
   0: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0
   1: 0000000000000000FFFF00000100007F:0BB9 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0
";

    #[test]
    fn listening_sockets_must_be_found_and_connections_left_out() {
        let expected = ["127.0.0.1:8080", "0.0.0.0:5000"].map(|a| a.parse().unwrap());
        assert_eq!(parse(TCP), BTreeSet::from(expected));
    }

    #[test]
    fn ipv6_and_mapped_addresses_must_be_understood() {
        let expected = ["[::1]:3000", "127.0.0.1:3001"].map(|a| a.parse().unwrap());
        assert_eq!(parse(TCP6), BTreeSet::from(expected));
    }

    #[test]
    fn text_that_is_no_table_must_give_nothing() {
        assert!(parse("").is_empty());
        assert!(parse("x\n:: zz 0A\n 0: 12:34:56 x 0A").is_empty());
    }

    #[test]
    fn our_own_listener_must_be_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listeners(std::process::id()).unwrap().contains(&listener.local_addr().unwrap()));
    }
}

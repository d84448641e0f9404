//! Why an instance did not come up in time, from who listens where in its network namespace. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use berth_wire::code::Code;

use super::probe::Unwell;

/// Most ports that a sentence names.
const PORTS_NAMED_MAX: usize = 4;

/// The code and the sentence. `last` is what the last check found.
pub fn diagnose(
    listeners: &BTreeSet<SocketAddr>,
    port: u16,
    seconds: u32,
    last: Option<&Unwell>,
) -> (Code, String) {
    let reachable = |a: &&SocketAddr| !a.ip().is_loopback();
    let on_port: Vec<&SocketAddr> = listeners.iter().filter(|a| a.port() == port).collect();
    if on_port.iter().any(reachable) {
        let found = last.map_or_else(|| "its checks did not pass".to_owned(), ToString::to_string);
        return (
            Code::R17,
            format!("It listens on port {port}, but was not healthy within {seconds} s: {found}"),
        );
    }
    if let Some(loopback) = on_port.first() {
        let message = format!(
            "It listens on {loopback} only, which nobody outside its container can reach; bind 0.0.0.0:{port} (or [::]:{port}) instead"
        );
        return (Code::R11, message);
    }
    let others: BTreeSet<u16> = listeners.iter().filter(reachable).map(|a| a.port()).collect();
    let others = if others.is_empty() { listeners.iter().map(SocketAddr::port).collect() } else { others };
    if !others.is_empty() {
        let named: Vec<String> = others.iter().take(PORTS_NAMED_MAX).map(u16::to_string).collect();
        let named = named.join(", ");
        let message = format!(
            "It listens on port {named}, but $PORT is {port}; bind the port that the environment variable PORT names"
        );
        return (Code::R13, message);
    }
    let message = format!(
        "Nothing listened on port {port} within {seconds} s; bind 0.0.0.0:$PORT, and do slow work after that"
    );
    (Code::R10, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(listeners: &[&str]) -> (Code, String) {
        let listeners = listeners.iter().map(|a| a.parse().unwrap()).collect();
        diagnose(&listeners, 5000, 60, Some(&Unwell::Status { path: "/up".into(), status: 503 }))
    }

    #[test]
    fn each_way_not_to_come_up_must_have_its_code() {
        assert_eq!(found(&[]).0, Code::R10);
        assert_eq!(found(&["127.0.0.1:5000"]).0, Code::R11);
        assert_eq!(found(&["[::1]:5000"]).0, Code::R11);
        assert_eq!(found(&["0.0.0.0:8000"]).0, Code::R13);
        assert_eq!(found(&["127.0.0.1:8000"]).0, Code::R13);
        assert_eq!(found(&["0.0.0.0:5000"]).0, Code::R17);
    }

    #[test]
    fn the_sentence_must_name_what_to_change() {
        assert!(found(&["127.0.0.1:5000"]).1.contains("0.0.0.0:5000"));
        let other = found(&["0.0.0.0:8000", "127.0.0.1:9000"]).1;
        assert!(other.contains("8000") && !other.contains("9000"), "{other}");
        assert!(found(&["0.0.0.0:5000"]).1.contains("503"));
    }

    #[test]
    fn a_listener_on_every_address_beside_loopback_must_not_count_as_loopback_only() {
        assert_eq!(found(&["127.0.0.1:5000", "[::]:5000"]).0, Code::R17);
    }
}

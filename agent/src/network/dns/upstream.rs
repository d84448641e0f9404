//! Asking the host's resolvers, one after the other. Each question gets a socket, a source port and an id of its own, and only
//! an answer from the resolver asked, with that id and question, counts (RFC 5452).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// How long one resolver may take; the libraries in containers wait 5 s for us and then ask again.
pub(super) const ANSWER_MS_MAX: u64 = 2_000;
/// resolv.conf(5), MAXNS.
const RESOLVERS_MAX: usize = 3;

/// Which resolvers.
#[derive(Debug)]
pub(super) struct Upstream {
    configured: Vec<IpAddr>,
    port: u16,
}

impl Upstream {
    /// With none configured, those of /etc/resolv.conf at each question: the file changes with the host's network.
    pub(super) fn new(configured: Vec<IpAddr>, port: u16) -> Self {
        Self { configured, port }
    }

    fn resolvers(&self) -> Vec<IpAddr> {
        if !self.configured.is_empty() {
            return self.configured.clone();
        }
        nameservers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    /// The first answer, with the client's id.
    pub(super) async fn ask(&self, message: &Message, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        for resolver in self.resolvers() {
            let address = SocketAddr::from((resolver, self.port));
            let exchange = async {
                let answer = if tcp {
                    over_tcp(address, message, query).await?
                } else {
                    over_udp(address, message, query).await?
                };
                Ok::<_, io::Error>(answer)
            };
            match tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), exchange).await {
                Ok(Ok(mut answer)) => {
                    answer[..2].copy_from_slice(&query[..2]);
                    return Some(answer);
                }
                Ok(Err(error)) => tracing::debug!(%address, %error, "resolver failed"),
                Err(_) => tracing::debug!(%address, "resolver is silent"),
            }
        }
        None
    }
}

/// The query with an id nobody can guess (a version 4 UUID's first bytes are random).
fn with_own_id(query: &[u8]) -> (u16, Vec<u8>) {
    let random = uuid::Uuid::new_v4();
    let id = u16::from_be_bytes([random.as_bytes()[0], random.as_bytes()[1]]);
    let mut own = query.to_vec();
    own[..2].copy_from_slice(&id.to_be_bytes());
    (id, own)
}

fn is_answer(bytes: &[u8], id: u16, question: &Message) -> bool {
    Message::from_vec(bytes).is_ok_and(|answer| {
        answer.metadata.id == id
            && answer.metadata.message_type == MessageType::Response
            && answer.queries == question.queries
    })
}

async fn over_udp(address: SocketAddr, question: &Message, query: &[u8]) -> io::Result<Vec<u8>> {
    let any =
        if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    let (id, own) = with_own_id(query);
    socket.send(&own).await?;
    let mut buffer = vec![0; 65_535];
    // Anything else that arrives is ignored until the time is up.
    loop {
        let length = socket.recv(&mut buffer).await?;
        if is_answer(&buffer[..length], id, question) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(address: SocketAddr, question: &Message, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let (id, own) = with_own_id(query);
    let mut message = u16::try_from(own.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    message.extend(own);
    stream.write_all(&message).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if is_answer(&answer, id, question) {
        Ok(answer)
    } else {
        Err(io::Error::other("answer to another question"))
    }
}

/// The `nameserver` lines of resolv.conf(5).
fn nameservers(resolv_conf: &str) -> Vec<IpAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
        })
        .take(RESOLVERS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nameserver_lines_must_count() {
        let text = "# nameserver 1.1.1.1\nsearch x\nnameserver 127.0.0.53\nnameserver ::1 # own\nnameserver nonsense\n";
        assert_eq!(nameservers(text), ["127.0.0.53".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    }
}

//! Going outside, and being what is outside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::{AS_IT_SHOULD_BE, MALFORMED, Outcome, found};

/// How long an answer may take on one machine.
const PATIENCE: Duration = Duration::from_millis(300);

pub fn attempt(name: &str, arguments: &[&str]) -> Option<Outcome> {
    let address = || arguments.first().and_then(|text| text.parse::<SocketAddr>().ok());
    Some(match name {
        "reach by TCP" => address().map_or(Err(MALFORMED), by_tcp),
        "reach by UDP" => address().map_or(Err(MALFORMED), by_udp),
        "have an IPv6 address" => {
            let text = fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
            found(text.lines().any(|line| !line.ends_with(" lo")))
        }
        "serve" => address().map_or(Err(MALFORMED), serve),
        _ => return None,
    })
}

fn by_tcp(address: SocketAddr) -> Outcome {
    found(TcpStream::connect_timeout(&address, PATIENCE).is_ok())
}

fn by_udp(address: SocketAddr) -> Outcome {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let answered = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(b"?", address)?;
        socket.recv(&mut [0; 16])
    };
    match answered() {
        Ok(_) => Ok(()),
        Err(_) => Err(AS_IT_SHOULD_BE),
    }
}

/// Answers over both until it is killed; says when it does.
fn serve(address: SocketAddr) -> Outcome {
    let (Ok(tcp), Ok(udp)) = (TcpListener::bind(address), UdpSocket::bind(address)) else { return Err(1) };
    println!("serving");
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&buffer[..length], from);
        }
    });
    for stream in tcp.incoming().flatten() {
        let mut stream = stream;
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.read(&mut [0; 16]).and_then(|_| stream.write(b"!"));
    }
    Ok(())
}

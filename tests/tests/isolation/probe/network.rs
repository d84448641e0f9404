//! Going outside, and being what is outside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::{AS_IT_SHOULD_BE, MALFORMED, Outcome, found};

/// How long an answer may take on one machine.
const PATIENCE: Duration = Duration::from_millis(500);

pub fn attempt(name: &str, arguments: &[&str]) -> Option<Outcome> {
    Some(match name {
        "reach any" => reach(arguments, true),
        "reach all" => reach(arguments, false),
        "have an IPv6 address" => {
            let text = fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
            found(text.lines().any(|line| !line.ends_with(" lo")))
        }
        "serve" => arguments.first().and_then(|text| text.parse().ok()).map_or(Err(MALFORMED), serve),
        _ => return None,
    })
}

/// Targets, each `tcp ADDRESS` or `udp ADDRESS`, all at once. Ends with 100 and the number of the first that was reached, or with
/// [`AS_IT_SHOULD_BE`] if none was; when all are to be reached, of the first that was not, or with success.
fn reach(targets: &[&str], any: bool) -> Outcome {
    let threads: Vec<_> = targets
        .iter()
        .map(|target| {
            let (protocol, address) = target.split_once(' ').unwrap_or_default();
            let (tcp, address) = (protocol == "tcp", address.parse::<SocketAddr>());
            std::thread::spawn(move || address.map(|address| if tcp { by_tcp(address) } else { by_udp(address) }))
        })
        .collect();
    let mut notable = None;
    for (number, thread) in (100..).zip(threads) {
        let reached = thread.join().map_err(|_| MALFORMED)?.map_err(|_| MALFORMED)?;
        if reached == any {
            notable = notable.or(Some(number));
        }
    }
    match notable {
        Some(number) => Err(number),
        None if any => Err(AS_IT_SHOULD_BE),
        None => Ok(()),
    }
}

fn by_tcp(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, PATIENCE).is_ok()
}

fn by_udp(address: SocketAddr) -> bool {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let answered = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(b"?", address)?;
        socket.recv(&mut [0; 16])
    };
    answered().is_ok()
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

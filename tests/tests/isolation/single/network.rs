//! What a container can reach. An outside of the test's own (a network namespace behind a route) has an address in every range that is
//! denied and one that is not; a neighbour and the host itself listen too. As shipped only the one address answers; with the table of
//! the packet filter taken out, all do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use berth_wire::quota::Bounds;
use berth_wire::report::Exit;

use crate::stage::{Attempt, Stage};
use crate::table::FINE;

const APP: u32 = 1_000;
const PORT: u16 = 7_077;

fn run(words: &str) -> Result<String, String> {
    let mut parts = words.split_whitespace();
    let output = Command::new(parts.next().unwrap_or_default()).args(parts).output();
    let output = output.map_err(|error| format!("{words}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{words}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A process of the probe that answers; ends with this value.
struct Server(Child);

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Result<Self, String> {
        let mut command = Command::new(program);
        let mut child = command
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        if line == "serving\n" { Ok(Self(child)) } else { Err(format!("{arguments:?} does not serve")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The network namespace outside, and the routes to it. What differs by process lets two suites run side by side.
struct Outside {
    name: String,
    number: u32,
    _server: Option<Server>,
}

impl Outside {
    fn make(probe: &Path) -> Result<Self, String> {
        let number = std::process::id() % 60;
        let mut outside = Self { name: format!("t-iso-{number}"), number, _server: None };
        let (name, host, inner) = (&outside.name, outside.near(1), outside.near(2));
        run(&format!("ip netns add {name}"))?;
        run(&format!("ip link add {name}h type veth peer name eth0 netns {name}"))?;
        run(&format!("ip address add {host}/30 dev {name}h"))?;
        run(&format!("ip link set {name}h up"))?;
        run(&format!("sysctl -qw net.ipv4.conf.{name}h.forwarding=1"))?;
        let inside = |words: &str| run(&format!("ip -n {name} {words}"));
        inside(&format!("address add {inner}/30 dev eth0"))?;
        inside("link set eth0 up")?;
        inside("link set lo up")?;
        inside(&format!("route add default via {host}"))?;
        for address in outside.denied() {
            inside(&format!("address add {address}/32 dev lo"))?;
            run(&format!("ip route add {address}/32 via {inner}"))?;
        }
        let serve = format!("0.0.0.0:{PORT}");
        let program = probe.to_string_lossy();
        outside._server =
            Some(Server::start("ip", &["netns", "exec", &outside.name, &program, "serve", &serve])?);
        Ok(outside)
    }

    /// An address of the documentation's, which nobody has.
    fn near(&self, offset: u32) -> String {
        format!("203.0.113.{}", self.number * 4 + offset)
    }

    /// One in each range: private, carrier's, link-local with the clouds' metadata, protocols', benchmarks', reserved.
    fn denied(&self) -> Vec<String> {
        let ranges = ["10.211", "172.31", "192.168", "100.64", "169.254", "198.19", "240.7"];
        let mut all: Vec<String> =
            ranges.iter().map(|range| format!("{range}.254.{}", self.number)).collect();
        all.push(format!("192.0.0.{}", self.number + 16));
        all
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // Interface and routes go with it.
        let _ = run(&format!("ip link delete {}h", self.name));
        let _ = run(&format!("ip netns delete {}", self.name));
    }
}

/// Over TCP, over UDP, and over TCP from an IPv6 socket.
fn targets(addresses: &[String], port: u16) -> Vec<String> {
    let of = |address: &String| {
        [
            format!("tcp {address}:{port}"),
            format!("udp {address}:{port}"),
            format!("tcp [::ffff:{address}]:{port}"),
        ]
    };
    addresses.iter().flat_map(of).collect()
}

async fn reach(stage: &Stage, name: &'static str, targets: &[String]) -> Result<(), String> {
    let mut attempt = Attempt { network: true, ..Attempt::new(name, APP) }.with(targets);
    attempt.quota.pids = Bounds::new(4, 128);
    let exit = stage.attempt(&attempt, |plan| plan).await.map_err(|error| error.to_string())?;
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) if i32::from(code) == FINE => Ok(()),
        Exit::Code(code @ 100..200) => {
            let target = targets.get(usize::from(code) - 100);
            Err(format!("{name}: {}", target.map_or("?", String::as_str)))
        }
        other => Err(format!("{name}: {other:?}")),
    }
}

/// Addresses of this host that others can see.
fn own_addresses() -> Result<Vec<String>, String> {
    let text = run("ip -o -4 address show scope global")?;
    let words = text.lines().filter_map(|line| line.split_whitespace().nth(3));
    let all = words.filter_map(|address| address.split('/').next()?.parse::<IpAddr>().ok());
    Ok(all.map(|address| address.to_string()).collect())
}

pub async fn reachable(stage: Arc<Stage>) -> Result<(), String> {
    let probe = stage.dir.path().join("images/plain/bin/probe");
    let outside = Outside::make(&probe)?;
    // The agent's metrics, the control plane and whatever else listens on the host, on all of its addresses.
    let on_host = 20_000 + (std::process::id() % 10_000) as u16;
    let host = Server::start(&probe.to_string_lossy(), &["serve", &format!("0.0.0.0:{on_host}")])?;
    let neighbour = Attempt { network: true, ..Attempt::new("serve", APP) }.with([format!("0.0.0.0:{PORT}")]);
    let spec = stage.spec(&neighbour);
    let id = spec.id;
    let started = stage.host.start(spec).await.map_err(|error| error.to_string())?;
    let neighbour = started.endpoint.ok_or("the neighbour has no address")?;
    let mut hidden = targets(&outside.denied(), PORT);
    hidden.extend(targets(&[neighbour.address.to_string()], PORT));
    let mut own = own_addresses()?;
    own.push(neighbour.gateway.to_string());
    // Many suites' interfaces would be too much for one round of attempts.
    own.truncate(6);
    hidden.extend(targets(&own, on_host));
    let tried = try_all(&stage, &outside, &hidden, on_host).await;
    drop(host);
    stage.host.destroy(id, true).await.map_err(|error| error.to_string())?;
    tried
}

async fn try_all(stage: &Stage, outside: &Outside, hidden: &[String], on_host: u16) -> Result<(), String> {
    reach(stage, "reach all", &targets(&[outside.near(2)], PORT)).await?;
    reach(stage, "reach any", hidden).await?;
    // There is no IPv6 to go anywhere by, and the container's own loopback is not the host's.
    let nowhere = [
        "tcp [fd00:ec2::254]:80".to_owned(),
        "udp [fe80::1]:53".to_owned(),
        "udp [ff02::1]:53".to_owned(),
        format!("tcp 127.0.0.1:{on_host}"),
        format!("tcp [::1]:{on_host}"),
        format!("tcp 0.0.0.0:{on_host}"),
        "tcp 169.254.169.254:80".to_owned(),
    ];
    reach(stage, "reach any", &nowhere).await?;
    let addresses = Attempt { network: true, ..Attempt::new("have an IPv6 address", APP) };
    match stage.attempt(&addresses, |plan| plan).await {
        Ok(Exit::Code(code)) if i32::from(code) == FINE => {}
        other => return Err(format!("an IPv6 address: {other:?}")),
    }
    let table = stage.host.installation.nft_table();
    let rules = run(&format!("nft list table inet {table}"))?;
    run(&format!("nft delete table inet {table}"))?;
    let open = reach(stage, "reach all", hidden).await;
    restore(&rules)?;
    open.map_err(|error| format!("without the packet filter's table: {error}"))
}

fn restore(rules: &str) -> Result<(), String> {
    let mut nft =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(rules.as_bytes()).map_err(|error| error.to_string())?;
    }
    let status = nft.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err("the table could not be put back".into()) }
}

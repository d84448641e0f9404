//! Containers' reach, tried in a network namespace that plays the host, with another one that plays the internet.
//! Needs root.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use uuid::Uuid;

use super::*;

/// The internet's end of the host's uplink: its neighbour.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const UPLINK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Somebody far away.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// A private network behind the uplink.
const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

/// Bytes a second: more than any test here needs.
const EGRESS: u64 = 1 << 30;

fn fresh_netns() -> File {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

/// Does something in a network namespace.
fn within<T: Send>(netns: &File, action: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        action()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a connection says that was tried from there; waits no longer than a dropped packet needs to be believed.
/// For what must be reached: the bound only ends a failing test.
fn connects(netns: &File, to: impl Into<SocketAddr>) -> bool {
    connects_within(netns, to.into(), Duration::from_secs(20))
}

/// For what must not: a packet that is dropped is dropped within this time, too.
fn is_cut_off(netns: &File, from: impl Into<SocketAddr>) -> bool {
    !connects_within(netns, from.into(), Duration::from_millis(300))
}

fn connects_within(netns: &File, to: SocketAddr, most: Duration) -> bool {
    within(netns, || TcpStream::connect_timeout(&to, most).is_ok())
}

fn listen(netns: &File, at: impl Into<SocketAddr>) -> TcpListener {
    let at = at.into();
    within(netns, || TcpListener::bind(at).unwrap())
}

struct Container {
    id: InstanceId,
    netns: File,
    endpoint: Endpoint,
    listener: TcpListener,
}

impl Container {
    async fn attached(network: &Network) -> Self {
        let (id, netns) = (InstanceId(Uuid::now_v7()), fresh_netns());
        let endpoint = network.attach(id, netns.as_fd(), EGRESS).await.unwrap();
        let listener = listen(&netns, ([0, 0, 0, 0], 80));
        Self { id, netns, endpoint, listener }
    }
}

/// Runs a test on a thread whose network namespace plays the host.
fn on_a_host<F: Future<Output = ()>>(
    name: &str,
    test: impl FnOnce(Installation, File, File) -> F + Send + 'static,
) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let installation = Installation::new(&format!("t-net-{name}-{}", std::process::id())).unwrap();
    let host = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let own = File::open("/proc/thread-self/ns/net").unwrap();
        // A machine that forwards (Docker turns that on) hands it down to new namespaces.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let internet = fresh_netns();
        let peer = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&internet));
        ip("link set lo up");
        ip(&format!("link add up0 mtu 1400 type veth peer name eth0 netns {peer}"));
        ip("addr add 203.0.113.2/30 dev up0");
        ip("link set up0 up");
        within(&internet, || {
            ip("link set lo up");
            ip("addr add 203.0.113.1/30 dev eth0");
            ip("addr add 198.51.100.1/32 dev lo");
            ip("addr add 10.1.2.3/32 dev lo");
            ip("link set eth0 up");
        });
        ip("route add default via 203.0.113.1");
        // The kernel notices the peer a moment later; what looks at the interface before and after would see a difference.
        let state = || Command::new("ip").args(["-o", "link", "show", "up0"]).output().unwrap().stdout;
        for _ in 0..1_000 {
            if String::from_utf8_lossy(&state()).contains("state UP") {
                break;
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(installation.clone(), own, internet));
        installation.release().unwrap();
    };
    std::thread::spawn(host).join().unwrap();
}

#[test]
fn a_container_must_reach_the_internet_and_nothing_else() {
    on_a_host("reach", async |installation, host, internet| {
        let network = Network::open(&installation, NetworkConfig::default()).await.unwrap();
        let container = Container::attached(&network).await;
        let other = Container::attached(&network).await;
        let everywhere = [listen(&internet, ([0, 0, 0, 0], 443)), listen(&host, ([0, 0, 0, 0], 8080))];
        let gateway = container.endpoint.gateway;

        assert!(connects(&container.netns, (FAR, 443)));
        let (_, seen_as) = everywhere[0].accept().unwrap();
        assert_eq!(seen_as.ip(), IpAddr::V4(UPLINK), "outside, a container must be the host");
        assert!(connects(&container.netns, (gateway, 53)), "the DNS server");

        // Each of these is there: the host reaches it.
        for (place, port) in [(gateway, 8080), (UPLINK, 8080), (NEIGHBOUR, 443), (other.endpoint.address, 80)]
        {
            assert!(connects(&host, (place, port)), "{place}:{port} from the host");
            assert!(is_cut_off(&container.netns, (place, port)), "{place}:{port} from the container");
        }
        assert!(connects(&host, (PRIVATE, 443)) && is_cut_off(&container.netns, (PRIVATE, 443)));
        network.close_down().await.unwrap();
    });
}

#[test]
fn only_the_host_must_reach_a_container() {
    on_a_host("inward", async |installation, host, internet| {
        let network = Network::open(&installation, NetworkConfig::default()).await.unwrap();
        let container = Container::attached(&network).await;
        let address = container.endpoint.address;
        within(&internet, || ip(&format!("route add {address}/32 via 203.0.113.2")));
        let mut stream = within(&host, || TcpStream::connect((address, 80))).unwrap();
        let (mut accepted, from) = container.listener.accept().unwrap();
        assert_eq!(from.ip(), IpAddr::V4(container.endpoint.gateway));
        stream.write_all(b"hello").unwrap();
        accepted.read_exact(&mut [0; 5]).unwrap();
        assert!(is_cut_off(&internet, (address, 80)));
        // The forwarding that Berth switched on must be nobody else's way through.
        within(&internet, || ip("route add 192.0.2.77/32 via 203.0.113.2"));
        let beyond = fresh_netns();
        let peer = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&beyond));
        ip(&format!("link add other0 type veth peer name eth0 netns {peer}"));
        ip("addr add 192.0.2.1/24 dev other0");
        ip("link set other0 up");
        within(&beyond, || {
            ip("addr add 192.0.2.77/24 dev eth0");
            ip("link set eth0 up");
            ip("route add default via 192.0.2.1");
        });
        let _beyond = listen(&beyond, ([0, 0, 0, 0], 80));
        assert!(connects(&host, ([192, 0, 2, 77], 80)) && is_cut_off(&internet, ([192, 0, 2, 77], 80)));
        network.close_down().await.unwrap();
    });
}

#[test]
fn a_foreign_source_address_must_be_dropped() {
    on_a_host("spoof", async |installation, _host, internet| {
        let network = Network::open(&installation, NetworkConfig::default()).await.unwrap();
        let (container, other) = (Container::attached(&network).await, Container::attached(&network).await);
        let sink = within(&internet, || UdpSocket::bind((FAR, 9)).unwrap());
        sink.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let send_as = |source: Ipv4Addr| {
            within(&container.netns, || {
                ip(&format!("addr replace {source}/32 dev eth0"));
                UdpSocket::bind((source, 0)).unwrap().send_to(b"x", (FAR, 9)).unwrap();
            });
            sink.recv_from(&mut [0; 1]).is_ok()
        };
        assert!(send_as(container.endpoint.address));
        assert!(!send_as(other.endpoint.address));
        assert!(!send_as(Ipv4Addr::new(8, 8, 4, 4)));
        network.close_down().await.unwrap();
    });
}

#[test]
fn a_restarted_agent_must_take_over_and_closing_must_leave_nothing() {
    on_a_host("again", async |installation, host, internet| {
        let snapshot = || {
            let run = |program: &str, arguments: &[&str]| {
                Command::new(program).args(arguments).output().unwrap().stdout
            };
            let text = [
                run("ip", &["-o", "link"]),
                run("ip", &["route", "show", "table", "all"]),
                run("nft", &["list", "ruleset"]),
                fs::read("/proc/sys/net/ipv4/conf/up0/forwarding").unwrap(),
            ];
            text.map(|bytes| String::from_utf8(bytes).unwrap())
        };
        let before = snapshot();
        let network = Network::open(&installation, NetworkConfig::default()).await.unwrap();
        let container = Container::attached(&network).await;
        let gone = Container::attached(&network).await;
        network.release(gone.id).await.unwrap();
        network.release(gone.id).await.unwrap();
        drop(network);

        let network = Network::open(&installation, NetworkConfig::default()).await.unwrap();
        assert_eq!(network.list(), [container.id]);
        assert_eq!(network.get(container.id), Some(container.endpoint.clone()));
        let _far = listen(&internet, ([0, 0, 0, 0], 443));
        assert!(connects(&container.netns, (FAR, 443)));
        let (received, sent) = network.sample(container.id).unwrap();
        assert!(received > 0 && sent > 0);

        // The same instance in a new namespace keeps its address.
        let netns = fresh_netns();
        assert_eq!(network.attach(container.id, netns.as_fd(), EGRESS).await.unwrap(), container.endpoint);
        let _listener = listen(&netns, ([0, 0, 0, 0], 80));
        assert!(connects(&host, (container.endpoint.address, 80)));
        network.detach(container.id).await.unwrap();
        network.detach(container.id).await.unwrap();
        assert!(matches!(network.sample(container.id), Err(NetworkError::NoInterface(_))));
        assert!(is_cut_off(&host, (container.endpoint.address, 80)));
        network.close_down().await.unwrap();
        network.close_down().await.unwrap();
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn who_leaves_must_free_his_address_at_once_and_his_interface_without_being_waited_for() {
    on_a_host("leave", async |installation, _host, _internet| {
        let network = Network::open(&installation, NetworkConfig::default()).await.unwrap();
        let (gone, restarting) = (Container::attached(&network).await, Container::attached(&network).await);
        let free = network.free();
        network.leave(gone.id, true).await.unwrap();
        assert_eq!((network.get(gone.id), network.free()), (None, free + 1));
        network.leave(restarting.id, false).await.unwrap();
        assert_eq!(network.get(restarting.id), Some(restarting.endpoint.clone()));
        // The next one may get the same address, and with it the same name, while the old interface is on its way out.
        let next = Container::attached(&network).await;
        network.settle().await;
        assert!(network.sample(next.id).is_ok());
        assert!(matches!(network.sample(restarting.id), Err(NetworkError::NoInterface(_))));
        network.leave(gone.id, true).await.unwrap();
        network.leave(restarting.id, true).await.unwrap();
        assert_eq!(network.list(), [next.id]);
        network.close_down().await.unwrap();
    });
}

#[test]
fn a_block_that_is_in_use_must_be_refused() {
    on_a_host("block", async |installation, _host, _internet| {
        ip("route add 198.18.7.0/24 dev up0");
        let config =
            NetworkConfig { block: Some("198.18.0.0/16".parse().unwrap()), ..NetworkConfig::default() };
        let error = Network::open(&installation, config).await.unwrap_err();
        assert!(error.to_string().contains("198.18.7.0/24"), "{error}");
    });
}

#[test]
fn a_container_must_not_send_faster_than_its_quota_and_receive_as_it_likes() {
    on_a_host("egress", async |installation, host, _| {
        let network = Network::open(&installation, NetworkConfig::default()).await.unwrap();
        let container = Container::attached(&network).await;
        let limit = async |mib: u64| network.limit_egress(container.netns.as_fd(), mib << 20).await.unwrap();
        // Moves so many MiB over one connection, from the container or to it; says how long that took.
        let moves = |mib: usize, sends: bool| {
            let (address, listener) = (container.endpoint.address, &container.listener);
            let client = within(&host, || TcpStream::connect((address, 80)).unwrap());
            let (server, _) = listener.accept().unwrap();
            let (mut from, mut to) = if sends { (server, client) } else { (client, server) };
            let began = std::time::Instant::now();
            std::thread::scope(|scope| {
                scope.spawn(move || from.write_all(&vec![7; mib << 20]).unwrap());
                let mut received = Vec::new();
                to.read_to_end(&mut received).unwrap();
                assert_eq!(received.len(), mib << 20);
            });
            began.elapsed()
        };
        limit(2).await;
        // 64 KiB at once, the rest at 2 MiB a second.
        let slow = moves(2, true);
        assert!(slow > Duration::from_millis(800), "{slow:?}");
        let received = moves(8, false);
        assert!(received < Duration::from_secs(2), "{received:?}");
        limit(1_024).await;
        let fast = moves(8, true);
        assert!(fast < Duration::from_secs(2), "{fast:?}");
        assert!(can_limit_egress());
        network.close_down().await.unwrap();
    });
}

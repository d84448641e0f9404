//! The real program: killed, restarted on the same listening socket, asked to stop, run without any privilege.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::instance::Instance;
use crate::rig::{Agent, get, read_until, shop, soon};

/// The program; killed when the test ends.
struct Edge(Child);

impl Edge {
    fn start(dir: &Path, listener: &TcpListener) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_berth-edge")), dir, listener, None)
    }

    /// Ends whoever reads what it says.
    fn deafen(&mut self) {
        drop(self.0.stderr.take());
    }

    fn start_program(program: &Path, dir: &Path, listener: &TcpListener, user: Option<u32>) -> Self {
        let mut command = Command::new(program);
        command.arg("--dir").arg(dir).env("LISTEN_FDS", "1").stderr(Stdio::piped());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let fd = listener.as_raw_fd();
        let pass = move || {
            // SAFETY: dup2 and fcntl on a descriptor that the parent holds open; both are async-signal-safe.
            let passed =
                unsafe { if fd == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(fd, 3) } };
            if passed < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: the closure allocates nothing and calls only async-signal-safe functions.
        unsafe { command.pre_exec(pass) };
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end without blocking the tests' threads.
    async fn ended(mut self) -> std::process::ExitStatus {
        tokio::task::spawn_blocking(move || self.0.wait().unwrap()).await.unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_edge_must_lose_only_what_was_in_flight_and_serve_again_without_an_agent() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, address) = listener();
    let instance = Instance::start("web.1").await;
    let mut edge = Edge::start(dir.path(), &listener);
    let mut agent = Agent::connect(dir.path()).await;
    let number = agent.route(shop(vec![instance.upstream.clone()])).await;
    drop(agent);
    for round in 1..=5 {
        assert_eq!(get(address, "shop.localhost", "/").await.text(), "web.1");
        let mut in_flight = TcpStream::connect(address).await.unwrap();
        in_flight.write_all(b"GET /wait HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.unwrap();
        // Each round asks three times; this is the second.
        soon(async {
            while instance.requests() < round * 3 - 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        edge.signal(Signal::SIGKILL);
        edge.ended().await;
        assert!(soon(in_flight.read_u8()).await.is_err(), "was in flight");
        // Comes while nobody accepts; waits in the backlog of the socket that lives on.
        let waiting = tokio::spawn(get(address, "shop.localhost", "/"));
        edge = Edge::start(dir.path(), &listener);
        let answer = soon(waiting).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "web.1"));
    }
    let mut agent = Agent::connect(dir.path()).await;
    agent.settle(number).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_asked_to_stop_must_finish_what_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, address) = listener();
    let instance = Instance::start("web.1").await;
    let edge = Edge::start(dir.path(), &listener);
    let mut agent = Agent::connect(dir.path()).await;
    agent.route(shop(vec![instance.upstream.clone()])).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.unwrap();
    read_until(&mut idle, "web.1").await;
    let slow = tokio::spawn(get(address, "shop.localhost", "/wait"));
    soon(async {
        while instance.requests() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    edge.signal(Signal::SIGTERM);
    assert_eq!(soon(idle.read(&mut [0; 1])).await.unwrap(), 0, "an idle connection is closed");
    instance.gate.add_permits(1);
    assert_eq!(soon(slow).await.unwrap().text(), "waited");
    assert!(soon(edge.ended()).await.success());
    let log = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
    assert_eq!(log.lines().count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_user_must_do() {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: another user can only be taken by root");
        return;
    }
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let (listener, address) = listener();
    let instance = Instance::start("web.1").await;
    // The build directory may be closed to other users.
    let program = dir.path().join("berth-edge");
    std::fs::copy(env!("CARGO_BIN_EXE_berth-edge"), &program).unwrap();
    chown(&program, Some(NOBODY), Some(NOBODY)).unwrap();
    let edge = Edge::start_program(&program, dir.path(), &listener, Some(NOBODY));
    let mut agent = Agent::connect(dir.path()).await;
    agent.route(shop(vec![instance.upstream.clone()])).await;
    assert_eq!(get(address, "shop.localhost", "/").await.text(), "web.1");
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.0.id())).unwrap();
    for line in
        ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65534\t65534"]
    {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    let socket = std::fs::metadata(dir.path().join("edge.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_whose_words_nobody_reads_must_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, address) = listener();
    let instance = Instance::start("web.1").await;
    let mut edge = Edge::start(dir.path(), &listener);
    edge.deafen();
    for number in 0..3 {
        // Each coming and going is a line on stderr.
        let mut agent = Agent::connect(dir.path()).await;
        agent.number = number;
        agent.route(shop(vec![instance.upstream.clone()])).await;
        assert_eq!(get(address, "shop.localhost", "/").await.text(), "web.1");
    }
    edge.signal(Signal::SIGTERM);
    assert!(soon(edge.ended()).await.success());
}

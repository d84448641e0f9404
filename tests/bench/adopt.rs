//! `adopt`: milliseconds from when the agent is gone until its successor, a new process, has found every one of many running containers
//! again: the kernel's parts opened, the launcher asked, and what was made ahead and never used removed. The peer is a daemon with live-restore, killed and started
//! again, until it lists them all. The agent's own files (ledger, journal) are not in it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_agent::container::READY_MAX;

use crate::peers::Peer;
use crate::report::{Figures, Missing, Report, percentile};
use crate::stage::{Places, Stage, installation_for, open_host, start_launcher};
use crate::{Arguments, Failure};

/// The name under which this program plays an agent.
pub const AGENT: &str = "adopt-agent";

const CONTAINERS: usize = 100;
/// The slowest peer takes about a second each.
const PEERS_CONTAINERS: usize = 30;
const ROUNDS: usize = 5;
/// A daemon that has not found its containers by then does not.
const PEER_MAX: Duration = Duration::from_secs(120);

/// What an agent of this bench is to do after it has adopted what there is.
const START: &str = "start";
const HOLD: &str = "hold";
const CLEAN: &str = "clean";

pub async fn measure(mut arguments: Arguments) -> Result<Report, Failure> {
    let count = arguments.count_or(CONTAINERS);
    let places = &arguments.places;
    let mut launcher = start_launcher(places)?;
    let id = installation_for(count);
    let ours = ours(places, &id, count);
    let cleaned = Agent::spawn(places, &id, count, CLEAN).and_then(|mut agent| Ok(agent.0.wait()?));
    launcher.kill()?;
    launcher.wait()?;
    cleaned?;
    let mut peers = BTreeMap::new();
    for peer in arguments.peers.iter().filter(|peer| peer.has_daemon()) {
        eprintln!("{}", peer.key);
        match theirs(peer, &arguments, count.min(PEERS_CONTAINERS)) {
            Ok(figures) => drop(peers.insert(peer.key.clone(), figures)),
            Err(error) => {
                arguments.missing.push(Missing { peer: peer.key.clone(), reason: error.to_string() });
            }
        }
    }
    Ok(Report { name: "adopt", runs: count, ours: ours?, peers, missing: arguments.missing })
}

/// Killed when dropped, as a crash would.
struct Agent(Child, BufReader<ChildStdout>);

impl Agent {
    fn spawn(places: &Places, id: &str, count: usize, task: &str) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([AGENT, &count.to_string()])
            .args([&places.root, &places.launcher, &places.work])
            .args([id, task])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        Ok(Self(child, BufReader::new(output)))
    }

    fn expect(&mut self, wanted: &str) -> Result<(), Failure> {
        let mut line = String::new();
        self.1.read_line(&mut line)?;
        if line.trim() == wanted { Ok(()) } else { Err(format!("wanted {wanted:?}, got {line:?}").into()) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ours(places: &Places, id: &str, count: usize) -> Result<Figures, Failure> {
    let mut agent = Agent::spawn(places, id, count, START)?;
    agent.expect("found 0")?;
    agent.expect("ready")?;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        drop(agent);
        let start = Instant::now();
        agent = Agent::spawn(places, id, count, HOLD)?;
        agent.expect(&format!("found {count}"))?;
        took.push(start.elapsed().as_secs_f64() * 1_000.0);
        agent.expect("ready")?;
    }
    let all_ms = percentile(&took, 50);
    Ok(Figures::default().with("all_ms", all_ms).with("each_ms", all_ms / count as f64))
}

/// Plays the agent: says how many it found, does its task, says when everything is ready, and waits to be killed.
pub async fn play(places: &Places, id: &str, count: usize, task: &str) -> Result<(), Failure> {
    let host = Arc::new(open_host(places, id).await?);
    let found = host.adopt().await?;
    println!("found {}", found.iter().filter(|found| found.exit.is_none()).count());
    let stage = Stage::of(host, None, places);
    if task == CLEAN {
        stage.destroy(found.into_iter().map(|found| found.id).collect()).await?;
        return stage.close().await;
    }
    if task == START {
        stage.start_idle(count).await?;
    }
    stage.host.ready.wait_for(READY_MAX).await;
    println!("ready");
    std::future::pending().await
}

fn theirs(peer: &Peer, arguments: &Arguments, count: usize) -> Result<Figures, Failure> {
    let work = &arguments.places.work;
    (0..count).try_for_each(|number| peer.run(number, work).map(drop))?;
    let start = Instant::now();
    peer.restart_daemon()?;
    while peer.running() < count {
        if start.elapsed() > PEER_MAX {
            return Err(format!("lists {} of {count} after {PEER_MAX:?}", peer.running()).into());
        }
    }
    let all_ms = start.elapsed().as_secs_f64() * 1_000.0;
    (0..count).for_each(|number| drop(peer.destroy(number, work)));
    Ok(Figures::default().with("all_ms", all_ms).with("each_ms", all_ms / count as f64))
}

//! The benches of the container runtime: each measures ours beside its peers in one run and prints one JSON object on one line. How the
//! peers are set up is `run.sh`'s business; what is measured stands at the top of each bench's file.
//!
//! Arguments: the bench, how many (0: its own default), directory of a root file system, path of berth-launcher, directory for working
//! files, file with the peers (JSON), file with those that cannot run (JSON).

mod adopt;
mod density;
mod launch;
mod peers;
mod report;
mod share;
mod stage;
mod storm;

use std::collections::BTreeMap;

use peers::Peer;
use report::{Figures, Missing, Report};
use stage::Places;

pub use berth_tests::host::Failure;

/// What a bench is given.
pub struct Arguments {
    count: usize,
    places: Places,
    peers: Vec<Peer>,
    missing: Vec<Missing>,
}

impl Arguments {
    fn count_or(&self, default: usize) -> usize {
        if self.count == 0 { default } else { self.count }
    }

    /// What `theirs` says of each peer; those that could not run are among the missing from then on.
    fn beside(
        &mut self,
        theirs: impl Fn(&Peer, &Self) -> Result<Figures, Failure>,
    ) -> BTreeMap<String, Figures> {
        let (mut peers, mut missing) = (BTreeMap::new(), Vec::new());
        for peer in &self.peers {
            eprintln!("{}", peer.key);
            match theirs(peer, self) {
                Ok(figures) => drop(peers.insert(peer.key.clone(), figures)),
                Err(error) => missing.push(Missing { peer: peer.key.clone(), reason: error.to_string() }),
            }
        }
        self.missing.extend(missing);
        peers
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let mut word = |what: &str| words.next().ok_or(format!("argument {what} is missing"));
    let name = word("BENCH")?;
    let count = word("COUNT")?.parse()?;
    let places =
        Places { root: word("ROOT")?.into(), launcher: word("LAUNCHER")?.into(), work: word("WORK")?.into() };
    if name == adopt::AGENT {
        return adopt::play(&places, &word("INSTALLATION")?, count, &word("TASK")?).await;
    }
    let peers = serde_json::from_slice(&std::fs::read(word("PEERS")?)?)?;
    let missing = serde_json::from_slice(&std::fs::read(word("MISSING")?)?)?;
    let arguments = Arguments { count, places, peers, missing };
    let report: Report = match name.as_str() {
        "launch" => launch::measure(arguments).await?,
        "storm" => storm::measure(arguments).await?,
        "density" => density::measure(arguments).await?,
        "share" => share::measure(arguments).await?,
        "adopt" => adopt::measure(arguments).await?,
        other => return Err(format!("no bench is called {other}").into()),
    };
    println!("{}", report.line()?);
    Ok(())
}

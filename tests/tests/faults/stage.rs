//! What every fault test works on: an app that is changed again and again, another beside it that must notice nothing, and what is
//! known of the first from acknowledgements.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use berth_tests::census;
use berth_tests::installation::{Installation, both, eventually};
use berth_tests::repository::Repository;
use berth_tests::traffic::{Failure, Traffic, get};

/// The app that is changed.
pub const TARGET: &str = "fault-target";
/// The app beside it.
pub const BYSTANDER: &str = "fault-bystander";

/// How long one command may take, back-offs included.
const COMMAND_MAX: Duration = Duration::from_secs(150);
/// How often a change is asked for that could not be acknowledged.
const TRIES_MAX: u32 = 10;
/// Between requests of one stream: the tests are not about throughput.
const PAUSE: Duration = Duration::from_millis(10);
/// Streams of requests to each app.
pub const STREAMS: usize = 2;

/// The installation and its two apps under traffic.
pub struct Stage {
    /// The installation.
    pub berth: Installation,
    /// The target's repository.
    pub repository: Repository,
    bystander: Vec<i32>,
    traffic: Vec<Traffic>,
    seen_failures: Vec<usize>,
    /// What the target may greet with.
    greetings: BTreeSet<String>,
    changes: u32,
    /// Releases that did not come up and said so.
    pub failed_releases: Vec<String>,
    /// Between what moments edges were killed.
    pub edge_deaths: Vec<(Instant, Instant)>,
}

impl Stage {
    /// Brings it up and starts the traffic.
    pub fn open() -> Result<Self, String> {
        let berth = Installation::bring_up("faults")?;
        Repository::of_app(&berth, BYSTANDER, "tests/apps/probe").push_ok();
        let repository = Repository::of_app(&berth, TARGET, "tests/apps/probe");
        repository.push_ok();
        let ready = census::converge(&berth)
            .and_then(|()| berth.interpose("berth-agent"))
            .and_then(|()| berth.interpose("berth-launcher"));
        if let Err(error) = ready {
            return Err(format!("{error}\n{}", berth.finish().err().unwrap_or_default()));
        }
        let traffic = [BYSTANDER, TARGET].map(|app| Traffic::start_paced(&berth, app, "/", STREAMS, PAUSE));
        Ok(Self {
            bystander: berth.processes_of(BYSTANDER),
            traffic: traffic.into(),
            repository,
            berth,
            seen_failures: vec![0; 2],
            greetings: BTreeSet::from([String::new()]),
            changes: 0,
            failed_releases: Vec::new(),
            edge_deaths: Vec::new(),
        })
    }

    /// Releases a new greeting: one launch, one teardown. A release that did not come up says so and changes nothing; whatever was
    /// not acknowledged is asked for again.
    pub fn change(&mut self) -> Result<(), String> {
        const DID_NOT_COME_UP: i32 = 6;
        let mut said = String::new();
        for _ in 0..TRIES_MAX {
            self.changes += 1;
            let greeting = format!("hello-{}", self.changes);
            let output = run(&self.berth, &["config", "set", &format!("GREETING={greeting}"), "-a", TARGET])?;
            said = both(&output);
            match output.status.code() {
                Some(0) => {
                    self.greetings = BTreeSet::from([greeting]);
                    return Ok(());
                }
                Some(DID_NOT_COME_UP) => {
                    println!("{}", said.trim());
                    self.failed_releases.push(said);
                    return Ok(());
                }
                // Nobody said yes: it may have happened or not.
                _ => drop(self.greetings.insert(greeting)),
            }
            let up = || self.berth.berth(&["hosts"]).status.success();
            eventually(Duration::from_secs(30), up);
        }
        Err(format!("{TRIES_MAX} changes in a row were not acknowledged; the last said {said}"))
    }

    /// Waits until the host is as its spec says and the target serves what was acknowledged; nobody else noticed anything.
    pub fn settle(&mut self) -> Result<(), String> {
        census::converge(&self.berth)?;
        let mut last = None;
        let right = eventually(Duration::from_secs(30), || {
            let answer = get(&self.berth, TARGET, "/");
            let told = answer.body.trim().split("greeting=").nth(1).unwrap_or("?").to_owned();
            let right = answer.status == 200 && self.greetings.contains(&told);
            last = Some(answer);
            right
        });
        if !right {
            return Err(format!("{TARGET} answers {last:?}, acknowledged was one of {:?}", self.greetings));
        }
        let failures = self.new_failures();
        match failures.first() {
            Some(first) => Err(format!("{} requests failed, the first: {first:?}", failures.len())),
            None => self.bystander_lives(),
        }
    }

    /// The bystander's processes are those that it had at first.
    pub fn bystander_lives(&self) -> Result<(), String> {
        let now = self.berth.processes_of(BYSTANDER);
        if now == self.bystander {
            Ok(())
        } else {
            Err(format!("{BYSTANDER} was {:?}, is {now:?}", self.bystander))
        }
    }

    /// Failed requests since the last call, but for those that a killed edge had in flight.
    pub fn new_failures(&mut self) -> Vec<Failure> {
        let mut new = Vec::new();
        for (traffic, seen) in self.traffic.iter().zip(&mut self.seen_failures) {
            let all = traffic.failures();
            new.extend_from_slice(all.get(*seen..).unwrap_or_default());
            *seen = all.len();
        }
        new.retain(|failure| {
            let in_flight =
                |(before, after): &(Instant, Instant)| failure.sent <= *after && *before <= failure.failed;
            failure.answer.status != 0 || !self.edge_deaths.iter().any(in_flight)
        });
        new
    }

    /// After the target was made to crash: waits until it answers again; what failed until then was meant to.
    pub fn target_is_back(&mut self) {
        // Whether it is back is what `settle` looks at.
        eventually(Duration::from_secs(60), || get(&self.berth, TARGET, "/").status == 200);
        self.new_failures();
    }

    /// Requests that were answered in any way, and those that were not with 200.
    pub fn requests(&self) -> (u64, usize) {
        let failed = self.traffic.iter().map(|traffic| traffic.failures().len()).sum();
        (self.traffic.iter().map(Traffic::sent).sum(), failed)
    }

    /// Ends the traffic and the installation.
    pub fn close(self) -> Result<(), String> {
        self.traffic.into_iter().for_each(|traffic| drop(traffic.stop()));
        self.berth.finish()
    }
}

/// A command of the CLI, ended if it takes too long.
pub fn run(berth: &Installation, args: &[&str]) -> Result<Output, String> {
    let mut command = berth.command("berth");
    let child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("berth {args:?}: {error}"))?;
    if !eventually(COMMAND_MAX, || child.try_wait().is_ok_and(|ended| ended.is_some())) {
        let _ = child.kill();
    }
    child.wait_with_output().map_err(|error| format!("berth {args:?}: {error}"))
}

//! Random kills: any of the four daemons at any moment, while releases, scaling, restarts and pushes go on. Afterwards nothing that
//! was acknowledged is missing, no container was lost, and no request failed but those inside a killed edge.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_tests::census;
use berth_tests::daemons::links;
use berth_tests::installation::{Installation, both, eventually};
use berth_tests::repository::Repository;

use crate::chance::Chance;
use crate::stage::{Stage, TARGET, run};

const DAEMONS: [&str; 4] = ["agent", "launcher", "edge", "control"];
/// Longest pause between two kills.
const PAUSE_MS_MAX: usize = 600;
/// Kills between two looks at the bystander.
const LOOK_EVERY: usize = 25;

/// What happened, all of which is to be nought but the first five.
#[derive(Debug, Default)]
pub struct Counts {
    /// Kills, in the order of [`DAEMONS`].
    pub kills: [usize; 4],
    /// Changes that were acknowledged.
    pub acknowledged: usize,
    /// Changes whose command said that it could not.
    pub not_acknowledged: usize,
    /// Requests that were answered in any way.
    pub requests: u64,
    /// Requests that a killed edge had in flight.
    pub in_flight: usize,
    /// Acknowledged changes that are missing.
    pub lost_changes: Vec<String>,
    /// Processes that ended and were not told to.
    pub lost_containers: Vec<String>,
    /// Other requests that failed.
    pub failed_requests: Vec<String>,
    /// What is there that the spec does not say, or the other way round.
    pub leaks: Vec<String>,
}

impl Counts {
    /// Whether nothing was lost.
    pub fn is_good(&self) -> bool {
        let lost = [&self.lost_changes, &self.lost_containers, &self.failed_requests, &self.leaks];
        lost.iter().all(|list| list.is_empty())
    }
}

/// What commands were told.
#[derive(Debug, Default)]
struct Told {
    /// Versions of releases that exist.
    releases: BTreeSet<u64>,
    /// What the config var may be: the last that was acknowledged, and those since that nobody answered for.
    counters: BTreeSet<String>,
    /// How many instances there may be, in the same way.
    counts: BTreeSet<String>,
    acknowledged: usize,
    not_acknowledged: usize,
}

/// Kills so often; the seed says whom and when.
pub fn kills(stage: &mut Stage, count: usize, seed: u64) -> Result<Counts, String> {
    println!("{count} random kills, seed {seed}");
    let began = Instant::now();
    let (mut counts, requests_before) = (Counts::default(), stage.requests());
    let stop = AtomicBool::new(false);
    let (berth, repository) = (&stage.berth, &stage.repository);
    let mut deaths = Vec::new();
    let mut lost = Vec::new();
    let (before, mut ended) = (ended_unasked(berth), BTreeSet::new());
    let told = std::thread::scope(|scope| {
        let operator = scope.spawn(|| operate(berth, repository, &stop, Chance::new(!seed)));
        let mut chance = Chance::new(seed);
        for number in 1..=count {
            let which = chance.below(DAEMONS.len());
            std::thread::sleep(Duration::from_millis(chance.below(PAUSE_MS_MAX) as u64));
            let old = berth.process(DAEMONS[which]);
            let before = Instant::now();
            if berth.kill(DAEMONS[which]) {
                counts.kills[which] += 1;
                if DAEMONS[which] == "edge" {
                    deaths.push((before, Instant::now()));
                }
            }
            // One at a time: without launcher and edge nobody holds the socket that both have.
            if !berth.comes_again(DAEMONS[which], old) || !launcher_is_up(berth) {
                lost.push(format!("{} did not start again after kill {number}", DAEMONS[which]));
                break;
            }
            if number % LOOK_EVERY == 0 {
                println!("{number} kills");
                lost.extend(stage.bystander_lives().err());
                ended.append(&mut ended_unasked(berth));
            }
        }
        stop.store(true, Ordering::Relaxed);
        operator.join().map_err(|_| "the operator panicked".to_owned())
    })?;
    println!("{count} kills in {} s", began.elapsed().as_secs());
    stage.edge_deaths.extend(deaths);
    counts.lost_containers = lost;
    (counts.acknowledged, counts.not_acknowledged) = (told.acknowledged, told.not_acknowledged);
    counts.leaks.extend(census::converge(&stage.berth).err());
    counts.lost_containers.extend(stage.bystander_lives().err());
    ended.append(&mut ended_unasked(&stage.berth));
    counts.lost_containers.extend(ended.difference(&before).cloned());
    counts.lost_changes = missing(&stage.berth, &told)?;
    let all = stage.requests();
    counts.failed_requests = stage.new_failures().iter().map(|failure| format!("{failure:?}")).collect();
    counts.requests = all.0 - requests_before.0;
    counts.in_flight = all.1 - requests_before.1 - counts.failed_requests.len();
    Ok(counts)
}

/// It has taken the edge over once it listens to signals.
fn launcher_is_up(berth: &Installation) -> bool {
    let ready = || {
        berth.process("launcher").is_some_and(|pid| links(pid).iter().any(|link| link.contains("[signalfd]")))
    };
    eventually(Duration::from_secs(30), ready)
}

/// One change after the other until told to stop.
fn operate(berth: &Installation, repository: &Repository, stop: &AtomicBool, mut chance: Chance) -> Told {
    let mut told = Told::default();
    told.counts.insert("1".to_owned());
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        match chance.below(8) {
            0 => push(berth, repository, number, &mut told),
            1 | 2 => {
                let count = (1 + chance.below(3)).to_string();
                let good = command(berth, &["scale", &format!("web={count}")], &mut told);
                remember(&mut told.counts, count, good);
            }
            3 | 4 => drop(command(berth, &["restart"], &mut told)),
            _ => {
                let good = command(berth, &["config", "set", &format!("COUNTER={number}")], &mut told);
                remember(&mut told.counters, number.to_string(), good);
            }
        }
    }
    told
}

/// Whether it was acknowledged: the control plane named the release.
fn command(berth: &Installation, args: &[&str], told: &mut Told) -> bool {
    let output = run(berth, &[args, &["-a", TARGET]].concat());
    let said = output.as_ref().map(both).unwrap_or_default();
    let releases = versions(&said);
    let good = !releases.is_empty() || output.is_ok_and(|output| output.status.success());
    told.releases.extend(releases);
    if good {
        told.acknowledged += 1
    } else {
        told.not_acknowledged += 1
    }
    good
}

fn push(berth: &Installation, repository: &Repository, number: usize, told: &mut Told) {
    repository.write("VERSION", &format!("random-{number}"));
    repository.commit("Another version");
    // Cut off or refused: pushed again by whoever pushes. Only success is an acknowledgement.
    let up = || berth.berth(&["hosts"]).status.success();
    eventually(Duration::from_secs(30), up);
    let pushed = repository.push();
    if pushed.ok {
        told.acknowledged += 1;
        told.releases.extend(versions(&pushed.text));
    } else {
        told.not_acknowledged += 1;
    }
}

/// `v12: Restart`, `v12 is live`.
fn versions(said: &str) -> Vec<u64> {
    let words = said.split_whitespace().filter_map(|word| word.strip_prefix('v'));
    words.filter_map(|number| number.trim_end_matches([':', '.', ',']).parse().ok()).collect()
}

fn remember(may_be: &mut BTreeSet<String>, value: String, acknowledged: bool) {
    if acknowledged {
        may_be.clear();
    }
    may_be.insert(value);
}

/// What was acknowledged and is not there.
fn missing(berth: &Installation, told: &Told) -> Result<Vec<String>, String> {
    let mut lost = Vec::new();
    let there = releases(berth)?;
    lost.extend(told.releases.difference(&there).map(|version| format!("release v{version}")));
    let set = berth.berth_ok(&["config", "get", "COUNTER", "-a", TARGET]);
    if !told.counters.contains(set.trim()) {
        lost.push(format!("COUNTER is {:?}, acknowledged was one of {:?}", set.trim(), told.counters));
    }
    // While a release takes over, the old instances are there, too.
    let mut count = String::new();
    eventually(Duration::from_secs(60), || {
        count = berth.berth_json(&["ps", "-a", TARGET]).as_array().map_or(0, Vec::len).to_string();
        told.counts.contains(&count)
    });
    if !told.counts.contains(&count) {
        lost.push(format!("{count} instances, acknowledged was one of {:?}", told.counts));
    }
    Ok(lost)
}

/// Every version there is, page by page.
fn releases(berth: &Installation) -> Result<BTreeSet<u64>, String> {
    let mut there = BTreeSet::new();
    let mut before = i64::MAX as u64;
    loop {
        let page = berth.api(&format!("/apps/{TARGET}/releases?limit=200&before={before}"))?;
        let versions: Vec<u64> =
            page.as_array().into_iter().flatten().filter_map(|r| r["version"].as_u64()).collect();
        let Some(least) = versions.iter().min() else { return Ok(there) };
        before = *least;
        there.extend(versions);
    }
}

/// Processes of any app that ended by themselves, as the agent told (R14, R16, R18); of the newest 1,000 events.
fn ended_unasked(berth: &Installation) -> BTreeSet<String> {
    let mut ended = BTreeSet::new();
    for app in [TARGET, crate::stage::BYSTANDER] {
        // No answer: the control plane is dead at the moment, and is asked again later.
        let events = berth.api(&format!("/apps/{app}/events?limit=1000")).unwrap_or_default();
        let coded =
            |event: &&serde_json::Value| matches!(event["code"].as_str(), Some("R14" | "R16" | "R18"));
        ended.extend(
            events.as_array().into_iter().flatten().filter(coded).map(|event| format!("{app}: {event}")),
        );
    }
    ended
}

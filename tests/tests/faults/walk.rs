//! From fault to fault: each point of the table once, a change or a start under it, and then the count that nothing is lost or left.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use berth_tests::census;
use berth_tests::installation::eventually;
use berth_tests::strace::{self, Strace};

use crate::chance::Chance;
use crate::stage::Stage;
use crate::table::{Action, During, Point, ROWS, Row};

/// Calls beyond those counted at first that are tried, until one point is not reached any more.
const BEYOND_MAX: u32 = 400;

/// What a walk did.
#[derive(Debug, Default)]
pub struct Walked {
    /// Points at which a fault happened.
    pub hit: usize,
    /// Faults: a point may be reached by several threads.
    pub faults: usize,
    /// Points that were not reached this time.
    pub missed: usize,
    /// What was wrong after a fault.
    pub wrong: Vec<String>,
}

/// Walks `most` points, chosen by the seed, or all of them.
pub fn walk(stage: &mut Stage, most: Option<usize>, seed: u64, only: &str) -> Result<Walked, String> {
    let mut points = points(&count(stage)?);
    points.retain(|point| point.to_string().contains(only));
    println!("{} points are known, seed {seed}", points.len());
    Chance::new(seed).shuffle(&mut points);
    one_of_each_row_first(&mut points);
    let all = most.is_none();
    points.truncate(most.unwrap_or(usize::MAX));
    if all {
        // In order, it is known where a call is made more often than when it was counted.
        points.sort_by_key(|p| (p.row.during, p.row.daemon, p.row.children, p.row.call, p.when));
    }
    let mut walked = Walked::default();
    for (number, point) in points.iter().enumerate() {
        visit(stage, point, &mut walked, number)?;
        let last = !points.get(number + 1).is_some_and(|next| std::ptr::eq(next.row, point.row));
        if all && last {
            beyond(stage, point, &mut walked)?;
        }
    }
    Ok(walked)
}

/// Some calls are made a hundred times and others once: a part of the points is to have some of all.
fn one_of_each_row_first(points: &mut [Point]) {
    let mut seen: BTreeMap<*const Row, usize> = BTreeMap::new();
    points.sort_by_cached_key(|point| {
        let before = seen.entry(std::ptr::from_ref(point.row)).or_default();
        *before += 1;
        *before
    });
}

/// Goes on behind the last counted call until the end of the operation.
fn beyond(stage: &mut Stage, last: &Point, walked: &mut Walked) -> Result<(), String> {
    for when in last.when + 1..last.when + BEYOND_MAX {
        let before = walked.hit;
        visit(stage, &Point { when, ..*last }, walked, usize::MAX)?;
        if walked.hit == before {
            break;
        }
    }
    Ok(())
}

fn visit(stage: &mut Stage, point: &Point, walked: &mut Walked, number: usize) -> Result<(), String> {
    let faults = match point.row.during {
        During::Change => change_under(stage, point),
        During::Start => start_under(stage, point),
    };
    let settled = faults.and_then(|faults| stage.settle().map(|()| faults));
    match settled {
        Ok(0) => walked.missed += 1,
        Ok(faults) => {
            walked.hit += 1;
            walked.faults += faults;
        }
        Err(wrong) => {
            println!("WRONG after {point}:\n{wrong}");
            walked.hit += 1;
            walked.wrong.push(format!("{point}: {wrong}"));
            // What one fault broke must not be blamed on the next; what does not heal at all ends the walk.
            census::converge(&stage.berth).map_err(|still| format!("after {point} for good: {still}"))?;
            stage.new_failures();
        }
    }
    if number % 50 == 49 {
        println!("{} points, {} wrong", number + 1, walked.wrong.len());
    }
    Ok(())
}

/// How often each row's call is made without a fault.
fn count(stage: &mut Stage) -> Result<BTreeMap<usize, u32>, String> {
    let mut counts = BTreeMap::new();
    let mut groups: BTreeMap<(&str, bool, During), Vec<usize>> = BTreeMap::new();
    for (index, row) in ROWS.iter().enumerate() {
        groups.entry((row.daemon, row.children, row.during)).or_default().push(index);
    }
    for ((daemon, children, during), rows) in groups {
        let calls: Vec<&str> = rows.iter().map(|&index| ROWS[index].call).collect();
        let trace = match during {
            During::Change => watched_change(stage, daemon, children, &calls.join(",")),
            During::Start => start(stage, daemon, &calls.join(",")),
        }?;
        stage.settle()?;
        for index in rows {
            let count = strace::most_by_thread(&trace, ROWS[index].call);
            print!(
                "{daemon}{} {during:?} {}: {count}; ",
                if children { "'s children" } else { "" },
                ROWS[index].call
            );
            counts.insert(index, count);
        }
        println!();
    }
    Ok(counts)
}

fn points(counts: &BTreeMap<usize, u32>) -> Vec<Point> {
    let mut points = Vec::new();
    for (&index, &count) in counts {
        let row = &ROWS[index];
        let actions = row.errors.iter().map(|error| Action::Fail(error)).chain([Action::Kill]);
        points.extend(actions.flat_map(|action| (1..=count).map(move |when| Point { row, action, when })));
    }
    points
}

fn watched_change(stage: &mut Stage, daemon: &str, children: bool, calls: &str) -> Result<String, String> {
    let output = stage.berth.data.join("run/change.trace");
    let pid = stage.berth.process(daemon).ok_or("it is not there")?;
    let strace = Strace::attach(pid, children || daemon != "launcher", calls, None, &output)?;
    stage.change()?;
    census::converge(&stage.berth)?;
    Ok(strace.detach())
}

fn change_under(stage: &mut Stage, point: &Point) -> Result<usize, String> {
    let Row { daemon, children, call, .. } = *point.row;
    let output = stage.berth.data.join("run/change.trace");
    let pid = stage.berth.process(daemon).ok_or("it is not there")?;
    let attached = Instant::now();
    let fault = point.fault();
    let strace = Strace::attach(pid, children || daemon != "launcher", call, Some(&fault), &output)?;
    let changed = stage.change();
    // The teardown comes after the answer. What is not well while faults may happen is looked at again without.
    let _ = census::converge(&stage.berth);
    let faults = strace::faults_in(&strace.detach());
    if daemon == "edge" && faults > 0 {
        stage.edge_deaths.push((attached, Instant::now()));
    }
    changed.map(|()| faults)
}

fn start_under(stage: &mut Stage, point: &Point) -> Result<usize, String> {
    let trace = start(stage, point.row.daemon, &format!("{} {}", point.row.call, point.fault()))?;
    Ok(strace::faults_in(&trace))
}

/// Kills the daemon and has it start again under strace; answers the trace once a change was possible again.
fn start(stage: &mut Stage, daemon: &str, calls_and_fault: &str) -> Result<String, String> {
    let program = format!("berth-{daemon}");
    let [fault, trace] = ["fault", "trace"].map(|what| stage.berth.interposed(&program, what));
    let _ = fs::remove_file(&trace);
    let staged = fault.with_extension("new");
    fs::write(&staged, format!("{calls_and_fault}\n"))
        .and_then(|()| fs::rename(&staged, &fault))
        .map_err(|error| format!("{}: {error}", fault.display()))?;
    let old = stage.berth.process(daemon);
    stage.berth.kill(daemon);
    if !eventually(Duration::from_secs(30), || !fault.exists()) || !stage.berth.comes_again(daemon, old) {
        return Err(format!("{daemon} did not start again"));
    }
    let changed = stage.change();
    let _ = census::converge(&stage.berth);
    if let Some(pid) = stage.berth.process(daemon) {
        strace::end_tracer_of(pid);
    }
    changed.map(|()| fs::read_to_string(&trace).unwrap_or_default())
}

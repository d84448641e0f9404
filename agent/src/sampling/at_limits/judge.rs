//! Which limits count as reached, and when to say so. Pure: looks and the time go in, sentences come out.
//!
//! A counter counts from the look before, a level (disk, files) by itself. What was said is not said again for [`QUIET`]: 7
//! codes of 1,000 instances are then at most 12 events a second on a whole host that does nothing but run into limits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::id::InstanceId;
use berth_wire::quota::Quota;

/// How long a limit of an instance that was named is not named again.
pub const QUIET: Duration = Duration::from_secs(600);

/// What an agent first sees so soon after its own start was there before it, and counted long before.
const ADOPTED_WITHIN: Duration = Duration::from_secs(30);

/// A container was throttled in this many of its periods...
const THROTTLED_PERCENT: u64 = 90;
/// ...in this many looks in a row, before it is said: a start and a burst of requests are shorter.
const THROTTLED_LOOKS: u32 = 2;
/// Periods of 100 ms in which it wanted to run, for a look to count: two of five seconds.
const THROTTLED_PERIODS_MIN: u64 = 20;
/// Given back in one look by a container whose memory is full: 20 MB/s of files that are read or written.
const GIVEN_BACK_MIN: u64 = 100 << 20;
/// A resolver library asks again, so a few lost ones are nothing to tell.
const LOOKUPS_DROPPED_MIN: u64 = 20;
/// Of a level's maximum: the next write is refused before it is reached, because space is reserved ahead.
const LEVEL_PERCENT: u64 = 95;

/// What one container has reached, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Forks refused, counted.
    pub forks_refused: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// Memory in use, page cache included.
    pub memory_bytes: u64,
    /// Bytes of memory given back, counted.
    pub memory_given_back_bytes: u64,
    /// Bytes in network buffers and the most there may be.
    pub network_buffers: Option<(u64, u64)>,
    /// Periods in which it wanted to run, counted.
    pub cpu_periods: u64,
    /// Of those, throttled ones.
    pub cpu_throttled_periods: u64,
    /// Bytes in its own root and how many there may be at the moment: its max, or less while the host's disk is short.
    pub disk: Option<(u64, u64)>,
    /// Log lines discarded, counted.
    pub lines_discarded: u64,
    /// Name lookups dropped, counted.
    pub lookups_dropped: u64,
    /// Of its process with the most open files.
    pub files: Option<Files>,
    /// Inotify instances and the most there may be.
    pub inotify: Option<(u64, u64)>,
}

/// Open files of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    /// Open now.
    pub open: u64,
    /// The most it may open.
    pub max: u64,
}

/// Something to say about an instance; the sentence goes on after its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Which limit.
    pub code: Code,
    /// "was refused 12 processes: …"
    pub message: String,
    /// The numbers in it.
    pub facts: Vec<(&'static str, u64)>,
}

/// What is known from earlier looks.
#[derive(Debug, Default)]
pub struct Judge {
    known: BTreeMap<InstanceId, Known>,
}

#[derive(Debug)]
struct Known {
    last: Look,
    throttled_looks: u32,
    said: BTreeMap<Code, Duration>,
}

impl Judge {
    /// Forgets instances that are gone.
    pub fn forget_all_but(&mut self, ids: &BTreeSet<InstanceId>) {
        self.known.retain(|id, _| ids.contains(id));
    }

    /// Takes a look in, `now` after the agent's start. A container's counters begin at nothing; those of an adopted one are where
    /// the first look finds them.
    pub fn judge(&mut self, id: InstanceId, look: Look, quota: &Quota, now: Duration) -> Vec<Said> {
        let last = if now < ADOPTED_WITHIN { look } else { Look::default() };
        let first = || Known { last, throttled_looks: 0, said: BTreeMap::new() };
        let known = self.known.entry(id).or_insert_with(first);
        let since = look.since(&known.last);
        known.last = look;
        let throttled = since.cpu_throttled_periods * 100 >= since.cpu_periods * THROTTLED_PERCENT
            && since.cpu_periods >= THROTTLED_PERIODS_MIN;
        known.throttled_looks = if throttled { known.throttled_looks + 1 } else { 0 };
        let long = known.throttled_looks >= THROTTLED_LOOKS;
        let mut said = [cpu(&since, quota, long), processes(&since, quota), memory(&since, quota)]
            .into_iter()
            .chain([disk(&look), log(&since, quota), files(&look), inotify(&look)])
            .chain([lookups(&since), network_buffers(&look)])
            .flatten()
            .collect::<Vec<_>>();
        said.retain(|said| known.said.get(&said.code).is_none_or(|at| now.saturating_sub(*at) >= QUIET));
        known.said.extend(said.iter().map(|said| (said.code, now)));
        said
    }
}

impl Look {
    /// With what was counted since an earlier look in place of what was counted. A count that is lower began again: the container
    /// was launched anew.
    fn since(&self, before: &Self) -> Self {
        let count = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self {
            forks_refused: count(self.forks_refused, before.forks_refused),
            memory_given_back_bytes: count(self.memory_given_back_bytes, before.memory_given_back_bytes),
            cpu_periods: count(self.cpu_periods, before.cpu_periods),
            cpu_throttled_periods: count(self.cpu_throttled_periods, before.cpu_throttled_periods),
            lines_discarded: count(self.lines_discarded, before.lines_discarded),
            lookups_dropped: count(self.lookups_dropped, before.lookups_dropped),
            ..*self
        }
    }
}

fn full(used: u64, max: u64) -> bool {
    max > 0 && used >= max / 100 * LEVEL_PERCENT
}

fn processes(since: &Look, quota: &Quota) -> Option<Said> {
    let (refused, max) = (since.forks_refused, quota.pids.max);
    let message = match refused {
        0 => format!("has all the {max} processes and threads that it may have"),
        _ => format!("was refused {refused} new processes: it has the {max} it may have"),
    };
    let facts = vec![("refused", refused), ("max", max)];
    (refused > 0 || since.pids >= max).then_some(Said { code: Code::R28, message, facts })
}

fn cpu(since: &Look, quota: &Quota, long: bool) -> Option<Said> {
    let max = quota.cpu_millis.max;
    let percent = since.cpu_throttled_periods * 100 / since.cpu_periods.max(1);
    long.then(|| Said {
        code: Code::R29,
        message: format!(
            "uses all of its {max}m of CPU and was held back in {percent} % of the last periods"
        ),
        facts: vec![("throttled_percent", percent), ("max_millis", max)],
    })
}

fn memory(since: &Look, quota: &Quota) -> Option<Said> {
    let (given_back, max) = (since.memory_given_back_bytes, quota.memory_bytes.max);
    (given_back >= GIVEN_BACK_MIN && full(since.memory_bytes, max)).then(|| Said {
        code: Code::R30,
        message: format!(
            "fills its {} MiB of memory and gave up {} MiB to go on",
            max >> 20,
            given_back >> 20
        ),
        facts: vec![("given_back_bytes", given_back), ("max_bytes", max)],
    })
}

fn disk(look: &Look) -> Option<Said> {
    let (used, max) = look.disk?;
    full(used, max).then(|| Said {
        code: Code::R21,
        message: format!("has written {} of the {} MiB that it may; more is refused", used >> 20, max >> 20),
        facts: vec![("used_bytes", used), ("max_bytes", max)],
    })
}

fn log(since: &Look, quota: &Quota) -> Option<Said> {
    let (lines, max) = (since.lines_discarded, quota.log_lines_per_second.max);
    (lines > 0).then(|| Said {
        code: Code::R22,
        message: format!("writes more than {max} log lines a second; {lines} were discarded"),
        facts: vec![("discarded", lines), ("max_per_second", max)],
    })
}

fn files(look: &Look) -> Option<Said> {
    let Files { open, max } = look.files?;
    full(open, max).then(|| Said {
        code: Code::R31,
        message: format!("has a process with {open} open files; it may have {max}"),
        facts: vec![("open", open), ("max", max)],
    })
}

fn inotify(look: &Look) -> Option<Said> {
    let (instances, max) = look.inotify?;
    full(instances, max).then(|| Said {
        code: Code::R32,
        message: format!("has {instances} inotify instances; a container may have {max}"),
        facts: vec![("instances", instances), ("max", max)],
    })
}

fn lookups(since: &Look) -> Option<Said> {
    let dropped = since.lookups_dropped;
    (dropped >= LOOKUPS_DROPPED_MIN).then(|| Said {
        code: Code::R33,
        message: format!("asks for more names than may be under way; {dropped} lookups were dropped"),
        facts: vec![("dropped", dropped)],
    })
}

fn network_buffers(look: &Look) -> Option<Said> {
    let (used, max) = look.network_buffers?;
    full(used, max).then(|| Said {
        code: Code::R34,
        message: format!(
            "holds {} MiB in network buffers; from {} MiB on its connections are slowed down",
            used >> 20,
            max >> 20
        ),
        facts: vec![("used_bytes", used), ("max_bytes", max)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: InstanceId = InstanceId(uuid::Uuid::nil());

    fn codes(judge: &mut Judge, look: Look, seconds: u64) -> Vec<Code> {
        let said = judge.judge(ID, look, &Quota::default(), Duration::from_secs(seconds));
        said.into_iter().map(|said| said.code).collect()
    }

    #[test]
    fn counts_from_before_the_first_look_must_not_be_told() {
        let mut judge = Judge::default();
        let old = Look { forks_refused: 9, lines_discarded: 9, lookups_dropped: 9, ..Look::default() };
        assert!(codes(&mut judge, old, 0).is_empty());
        assert!(codes(&mut judge, old, 5).is_empty());
        assert_eq!(codes(&mut judge, Look { forks_refused: 10, ..old }, 10), [Code::R28]);
    }

    #[test]
    fn what_was_told_must_be_quiet_for_a_while_and_then_be_told_again() {
        let mut judge = Judge::default();
        codes(&mut judge, Look::default(), 0);
        let after = |forks_refused| Look { forks_refused, ..Look::default() };
        assert_eq!(codes(&mut judge, after(1), 5), [Code::R28]);
        assert!(codes(&mut judge, after(2), 10).is_empty());
        assert_eq!(codes(&mut judge, Look { lines_discarded: 1, ..after(3) }, 15), [Code::R22]);
        assert_eq!(codes(&mut judge, after(4), 5 + QUIET.as_secs()), [Code::R28]);
    }

    #[test]
    fn a_burst_of_work_must_not_count_as_long() {
        let mut judge = Judge::default();
        let busy = |looks: u64| Look {
            cpu_periods: 50 * looks,
            cpu_throttled_periods: 49 * looks,
            ..Look::default()
        };
        assert!(codes(&mut judge, busy(0), 0).is_empty());
        assert!(codes(&mut judge, busy(1), 5).is_empty(), "one look");
        assert!(codes(&mut judge, busy(1), 10).is_empty(), "idle again");
        assert!(codes(&mut judge, busy(2), 15).is_empty());
        assert_eq!(codes(&mut judge, busy(3), 20), [Code::R29]);
    }

    #[test]
    fn a_level_must_be_told_from_the_first_look_on() {
        let mut judge = Judge::default();
        let files = Some(Files { open: 1_000, max: 1_024 });
        let look =
            Look { disk: Some((1_020 << 20, 1 << 30)), files, inotify: Some((127, 128)), ..Look::default() };
        assert_eq!(codes(&mut judge, look, 0), [Code::R21, Code::R31, Code::R32]);
    }

    #[test]
    fn what_came_after_the_agent_must_be_told_from_its_first_look_on() {
        let refused = Look { forks_refused: 1, ..Look::default() };
        assert_eq!(codes(&mut Judge::default(), refused, ADOPTED_WITHIN.as_secs()), [Code::R28]);
    }

    #[test]
    fn a_new_launch_must_count_from_nothing() {
        let mut judge = Judge::default();
        codes(&mut judge, Look { forks_refused: 100, ..Look::default() }, 0);
        assert_eq!(codes(&mut judge, Look { forks_refused: 3, ..Look::default() }, 5), [Code::R28]);
    }

    #[test]
    fn the_instance_must_be_forgotten_when_it_is_gone() {
        let mut judge = Judge::default();
        codes(&mut judge, Look::default(), 0);
        judge.forget_all_but(&BTreeSet::new());
        assert!(judge.known.is_empty());
    }
}

//! Room: on which host an instance fits, and why not on the others. What counts is the sum of floors, of every instance
//! that a host still has: one that drains holds its floor until it has ended.

use std::collections::HashMap;

use berth_wire::code::Code;
use berth_wire::id::{AppId, HostId};
use berth_wire::name::ProcessType;
use berth_wire::quota::{MIB, Quota};
use berth_wire::report::{HostFacts, Trouble};
use jiff::Timestamp;

use crate::domain::host::HostRow;
use crate::domain::placed::Placed;

/// Resources that placement counts; a log rate is not something a host runs out of.
const RESOURCES: usize = 4;

/// Amounts in the order cpu, memory, disk, pids.
type Amounts = [u64; RESOURCES];

/// What a host has for instances. A tenth of its memory stays with the system, the agent and the edge; of its disk the
/// agent says how much it can promise beside image layers. A host that could not find out its disk or its processes is not
/// held to them; one that has not told its memory yet gets nothing.
pub fn capacity(facts: &HostFacts) -> Amounts {
    let disk = if facts.disk_reservable_bytes == 0 { facts.disk_bytes } else { facts.disk_reservable_bytes };
    [facts.cpu_millis, facts.memory_bytes / 10 * 9, told(disk), told(facts.pids)]
}

fn told(amount: u64) -> u64 {
    if amount == 0 { u64::MAX } else { amount }
}

/// What placement counts of a quota.
pub fn floors(quota: &Quota) -> Amounts {
    [quota.cpu_millis.floor, quota.memory_bytes.floor, quota.disk_bytes.floor, quota.pids.floor]
}

/// Whether an instance would fit on a host that had nothing else. Its max must fit, too: a max that no kernel could
/// ever grant is a typing error.
pub fn fits_empty(facts: &HostFacts, quota: &Quota) -> bool {
    let maxima = [quota.cpu_millis.max, quota.memory_bytes.max, quota.disk_bytes.max, quota.pids.max];
    let has = [facts.cpu_millis, facts.memory_bytes, told(facts.disk_bytes), told(facts.pids)];
    let floors_fit = floors(quota).iter().zip(capacity(facts)).all(|(floor, has)| *floor <= has);
    floors_fit && maxima.iter().zip(has).all(|(max, has)| *max <= has)
}

/// What is free on each host.
#[derive(Debug, Clone)]
pub struct Room {
    hosts: Vec<Free>,
}

#[derive(Debug, Clone)]
struct Free {
    id: HostId,
    name: String,
    up: bool,
    free: Amounts,
    of: HashMap<(AppId, ProcessType), u32>,
}

impl Room {
    /// What is free beside the instances that there are.
    pub fn new<'a>(hosts: &[HostRow], placed: impl Iterator<Item = &'a Placed>, now: Timestamp) -> Self {
        let mut room = Self {
            hosts: hosts
                .iter()
                .map(|host| Free {
                    id: host.id,
                    name: host.name.clone(),
                    up: host.is_up(now),
                    free: capacity(&host.facts),
                    of: HashMap::new(),
                })
                .collect(),
        };
        for placed in placed {
            if let Some(host) = room.hosts.iter_mut().find(|host| host.id == placed.host) {
                host.take(placed.spec.app, &placed.spec.process, &placed.spec.quota);
            }
        }
        room
    }

    /// Takes room for one more instance: on the host with the fewest of its kind, among those the fullest one that it
    /// fits on, so that large holes stay for large instances. Answers with the host and the reason.
    ///
    /// # Errors
    /// R24 or A19, with a sentence that says what is missing where.
    pub fn place(
        &mut self,
        app: AppId,
        process: &ProcessType,
        quota: &Quota,
    ) -> Result<(HostId, String), Trouble> {
        let kind = (app, process.clone());
        let wanted = floors(quota);
        let best = self
            .hosts
            .iter_mut()
            .filter(|host| host.up && host.missing(wanted).is_none())
            .min_by_key(|host| (host.of.get(&kind).copied().unwrap_or(0), host.free[1], host.id));
        let Some(host) = best else { return Err(self.refusal(wanted)) };
        let siblings = host.of.get(&kind).copied().unwrap_or(0);
        let reason = format!(
            "on {}: it has {} MiB of memory free and {siblings} other {process} of this app",
            host.name,
            host.free[1] / MIB
        );
        let id = host.id;
        host.take(app, process, quota);
        Ok((id, reason))
    }

    /// Takes what a larger quota needs beyond a smaller one on the host that has it, or gives back what is no longer
    /// needed; whether there is room.
    pub fn resize(&mut self, host: HostId, from: &Quota, to: &Quota) -> bool {
        let Some(host) = self.hosts.iter_mut().find(|has| has.id == host) else { return false };
        let resized: [Option<u64>; RESOURCES] = std::array::from_fn(|i| {
            let (from, to) = (floors(from)[i], floors(to)[i]);
            if to <= from {
                Some(host.free[i].saturating_add(from - to))
            } else {
                host.free[i].checked_sub(to - from)
            }
        });
        let fits = resized.iter().all(Option::is_some);
        if fits {
            host.free = resized.map(Option::unwrap_or_default);
        }
        fits
    }

    fn refusal(&self, wanted: Amounts) -> Trouble {
        let trouble = |code, message| Trouble { code, message, log_tail: Vec::new() };
        // Nearest: the one that lacks the smallest part of what is wanted.
        let nearest = self
            .hosts
            .iter()
            .filter(|host| host.up)
            .filter_map(|host| host.missing(wanted).map(|resource| (host, resource)))
            .min_by_key(|(host, resource)| {
                let (free, wanted) = (host.free[*resource], wanted[*resource].max(1));
                (wanted - free.min(wanted)).saturating_mul(1_000) / wanted
            });
        match nearest {
            None => trouble(
                Code::A19,
                "waits: no host is connected; start the agent, and look at `berth hosts`".to_owned(),
            ),
            Some((host, resource)) => trouble(
                Code::R24,
                format!(
                    "waits: no host has {} free; nearest is {} with {}",
                    shown(resource, wanted[resource]),
                    host.name,
                    shown(resource, host.free[resource])
                ),
            ),
        }
    }
}

impl Free {
    /// The first resource that is short.
    fn missing(&self, wanted: Amounts) -> Option<usize> {
        (0..RESOURCES).find(|i| self.free[*i] < wanted[*i])
    }

    fn take(&mut self, app: AppId, process: &ProcessType, quota: &Quota) {
        for (free, floor) in self.free.iter_mut().zip(floors(quota)) {
            *free = free.saturating_sub(floor);
        }
        *self.of.entry((app, process.clone())).or_default() += 1;
    }
}

fn shown(resource: usize, amount: u64) -> String {
    match resource {
        0 => format!("{amount} milli-CPUs"),
        1 => format!("{} MiB of memory", amount / MIB),
        2 => format!("{} MiB of disk", amount / MIB),
        _ => format!("{amount} processes"),
    }
}

#[cfg(test)]
mod tests {
    use berth_wire::quota::Bounds;
    use berth_wire::report::EdgeReport;
    use uuid::Uuid;

    use super::*;

    fn host(n: u128, memory_mib: u64) -> HostRow {
        let facts = HostFacts {
            cpu_millis: 2_000,
            memory_bytes: memory_mib * MIB,
            disk_bytes: 10_000 * MIB,
            pids: 4_096,
            ..HostFacts::default()
        };
        HostRow {
            id: HostId(Uuid::from_u128(n)),
            name: format!("h{n}"),
            seen_at: Some(Timestamp::UNIX_EPOCH),
            facts,
            edge: EdgeReport::default(),
            events_received: 0,
        }
    }

    fn quota(memory_mib: u64) -> Quota {
        Quota { memory_bytes: Bounds::new(memory_mib * MIB, memory_mib * MIB), ..Quota::default() }
    }

    fn room(hosts: &[HostRow]) -> Room {
        Room::new(hosts, std::iter::empty(), Timestamp::UNIX_EPOCH)
    }

    const APP: AppId = AppId(Uuid::nil());

    #[test]
    fn instances_of_one_kind_must_spread_and_others_fill_the_fullest_host() {
        let mut room = room(&[host(1, 4_000), host(2, 2_000)]);
        let web = ProcessType::web();
        let on = |room: &mut Room, process: &ProcessType| {
            room.place(APP, process, &quota(500)).unwrap().0.0.as_u128()
        };
        assert_eq!([on(&mut room, &web), on(&mut room, &web), on(&mut room, &web)], [2, 1, 2]);
        assert_eq!(on(&mut room, &"worker".parse().unwrap()), 2);
    }

    #[test]
    fn a_refusal_must_name_the_nearest_host_and_what_it_lacks() {
        let mut room = room(&[host(1, 100), host(3, 400)]);
        let refused = room.place(APP, &ProcessType::web(), &quota(512)).unwrap_err();
        assert_eq!(refused.code, Code::R24);
        let said = "waits: no host has 512 MiB of memory free; nearest is h3 with 360 MiB of memory";
        assert_eq!(refused.message, said);
    }

    #[test]
    fn a_larger_quota_must_fit_beside_what_the_host_has_already() {
        let mut room = room(&[host(1, 1_000)]);
        let (host, _) = room.place(APP, &ProcessType::web(), &quota(300)).unwrap();
        assert!(!room.resize(host, &quota(300), &quota(901)));
        assert!(room.resize(host, &quota(300), &quota(900)));
        assert!(room.resize(host, &quota(900), &quota(100)));
        assert!(room.place(APP, &ProcessType::web(), &quota(800)).is_ok());
    }

    #[test]
    fn a_silent_host_must_get_nothing() {
        let silent = HostRow { seen_at: None, ..host(1, 4_000) };
        assert_eq!(room(&[silent]).place(APP, &ProcessType::web(), &quota(1)).unwrap_err().code, Code::A19);
    }

    #[test]
    fn floors_must_fit_into_the_part_of_the_disk_that_the_host_can_promise() {
        let mut host = host(1, 4_000);
        host.facts.disk_reservable_bytes = 20 * MIB;
        let mut room = room(&[host]);
        room.place(APP, &ProcessType::web(), &quota(1)).unwrap();
        let refused = room.place(APP, &ProcessType::web(), &quota(1)).unwrap_err();
        assert_eq!(
            refused.message,
            "waits: no host has 16 MiB of disk free; nearest is h1 with 4 MiB of disk"
        );
    }

    #[test]
    fn a_max_that_no_host_has_must_not_fit() {
        let facts = host(1, 1_000).facts;
        assert!(fits_empty(&facts, &quota(900)));
        assert!(!fits_empty(&facts, &quota(950)));
        let max = Quota { memory_bytes: Bounds::new(MIB, 2_000 * MIB), ..Quota::default() };
        assert!(!fits_empty(&facts, &max));
    }
}

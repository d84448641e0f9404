//! What one container has reached of its limits, read at one moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use berth_wire::id::InstanceId;

use super::judge::{Files, Look};
use crate::container::Host;

/// A process with fewer open files than this is not looked at more closely.
const FILES_FEW: u64 = 64;
/// Most descriptors of a container whose kind is looked at: twice the kernel's usual 128 inotify instances, with as many others beside.
const LINKS_MAX: usize = 512;

/// None if it is gone, or was never whole.
pub(super) fn look(host: &Host, id: InstanceId, discarded: &BTreeMap<InstanceId, u64>) -> Option<Look> {
    let group = host.cgroups.get(id).ok().flatten()?;
    let refused = group.refused().ok()?;
    let sample = group.sample().ok()?;
    let (files, inotify) = files(&group.processes().ok()?);
    let lookups_dropped = host.network.get(id).map(|endpoint| host.network.lookups_dropped(endpoint.address));
    Some(Look {
        forks_refused: refused.forks,
        pids: sample.pids,
        memory_bytes: sample.memory_usage_bytes,
        memory_given_back_bytes: refused.memory_given_back_bytes,
        network_buffers: refused.network_buffers,
        cpu_periods: sample.cpu_periods,
        cpu_throttled_periods: sample.cpu_throttled_periods,
        disk: host.disk.usage(id).ok(),
        lines_discarded: discarded.get(&id).copied().unwrap_or_default(),
        lookups_dropped: lookups_dropped.unwrap_or_default(),
        files,
        inotify: inotify.zip(inotify_max()),
    })
}

/// The process with the most open files, and how many inotify instances there are where that is worth counting. A process that
/// ended meanwhile has none.
fn files(processes: &[i32]) -> (Option<Files>, Option<u64>) {
    let mut most: Option<(i32, u64)> = None;
    let (mut links, mut inotify) = (0, None);
    for &pid in processes {
        let path = format!("/proc/{pid}/fd");
        // The number of entries, since 6.2; 0 before.
        let open = fs::metadata(&path).map_or(0, |found| std::os::unix::fs::MetadataExt::size(&found));
        if open < FILES_FEW {
            continue;
        }
        if most.is_none_or(|(_, before)| open > before) {
            most = Some((pid, open));
        }
        let entries = fs::read_dir(&path).into_iter().flatten().flatten().take(LINKS_MAX - links);
        for entry in entries {
            links += 1;
            let is_inotify =
                fs::read_link(entry.path()).is_ok_and(|target| target == Path::new("anon_inode:inotify"));
            *inotify.get_or_insert(0) += u64::from(is_inotify);
        }
    }
    let files = most.and_then(|(pid, open)| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        Some(Files { open, max: open_files_max(&limits)? })
    });
    (files, inotify)
}

/// The soft limit in a `/proc/PID/limits`.
fn open_files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn inotify_max() -> Option<u64> {
    fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_must_be_found_among_the_others() {
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        assert_eq!(open_files_max(&limits), own);
        assert_eq!(open_files_max("Max locked memory 1 2 bytes"), None);
    }

    #[test]
    fn inotify_instances_must_be_counted_among_the_open_files_of_a_process() {
        let held: Vec<_> = (0..3)
            .map(|_| rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).unwrap())
            .collect();
        let others: Vec<_> = (0..FILES_FEW).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let (most, inotify) = files(&[std::process::id().cast_signed()]);
        let most = most.unwrap();
        assert!(most.open >= FILES_FEW + 3 && most.max >= most.open, "{most:?}");
        assert!(inotify.unwrap() >= 3, "{inotify:?}");
        drop((held, others));
    }
}

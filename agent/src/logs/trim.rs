//! What is kept of logs whose instance is gone, and for how long. Logs of instances that are there are never touched: the
//! launcher bounds those itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use berth_wire::id::InstanceId;

use super::name::LogName;

/// Bytes kept per app beside those of its living instances: three full instances' worth.
pub const APP_BYTES_MAX: u64 = 64 << 20;
/// Files kept per app beside those of its living instances: a crash-looping release leaves one per instance, not per crash.
pub const APP_FILES_MAX: usize = 200;
/// How long the log of a gone instance is kept.
pub const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// One file of a gone instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where.
    pub path: PathBuf,
    /// How large.
    pub bytes: u64,
    /// Since it was last written to.
    pub age: Duration,
}

/// Which of these to remove: the too old ones, then the oldest until both bounds hold. Pure.
pub fn surplus(mut files: Vec<Kept>) -> Vec<PathBuf> {
    files.sort_by_key(|file| file.age);
    let (mut bytes, mut count) = (0, 0);
    files.retain(|file| {
        bytes += file.bytes;
        count += 1;
        file.age > AGE_MAX || bytes > APP_BYTES_MAX || count > APP_FILES_MAX
    });
    files.into_iter().map(|file| file.path).collect()
}

/// Trims every app's logs; says how many files went. An app's directory goes with its last file.
pub fn trim(logs: &Path, living: &BTreeSet<InstanceId>, now: SystemTime) -> usize {
    let mut removed = 0;
    for app in std::fs::read_dir(logs).into_iter().flatten().flatten() {
        for path in surplus(of_the_gone(&app.path(), living, now)) {
            match std::fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) => tracing::warn!(%error, path = %path.display(), "could not remove an old log"),
            }
        }
        // Fails, as it should, while anything is in it.
        let _ = std::fs::remove_dir(app.path());
    }
    removed
}

fn of_the_gone(app_dir: &Path, living: &BTreeSet<InstanceId>, now: SystemTime) -> Vec<Kept> {
    let entries = std::fs::read_dir(app_dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name().to_str().and_then(LogName::parse);
            name.is_some_and(|name| !living.contains(&name.instance))
        })
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            let age = now.duration_since(metadata.modified().ok()?).unwrap_or_default();
            Some(Kept { path: entry.path(), bytes: metadata.len(), age })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(n: u64, mebibytes: u64, days: u64) -> Kept {
        let age = Duration::from_secs(days * 24 * 3_600 + n);
        Kept { path: PathBuf::from(n.to_string()), bytes: mebibytes << 20, age }
    }

    #[test]
    fn the_oldest_must_go_first_when_there_is_too_much() {
        let files = (1..=5).map(|n| kept(n, 20, 1)).collect();
        assert_eq!(surplus(files), [PathBuf::from("4"), PathBuf::from("5")]);
    }

    #[test]
    fn what_is_too_old_must_go_however_small() {
        assert_eq!(surplus(vec![kept(1, 0, 1), kept(2, 0, 8)]), [PathBuf::from("2")]);
    }

    #[test]
    fn a_living_instances_log_must_never_be_removed() {
        let logs = tempfile::tempdir().unwrap();
        let app = logs.path().join("a");
        std::fs::create_dir(&app).unwrap();
        let ids = ["01980000-0000-7000-8000-000000000001", "01980000-0000-7000-8000-000000000002"];
        for id in ids {
            std::fs::write(app.join(format!("web.1.{id}.log")), "1 x\n").unwrap();
        }
        let in_a_year = SystemTime::now() + Duration::from_secs(365 * 24 * 3_600);
        let living = BTreeSet::from([ids[0].parse().unwrap()]);
        assert_eq!(trim(logs.path(), &living, in_a_year), 1);
        assert!(app.join(format!("web.1.{}.log", ids[0])).exists());
        assert_eq!(trim(logs.path(), &BTreeSet::new(), in_a_year), 1);
        assert!(!app.exists());
    }
}

//! What must be known about an instance after the agent was restarted, and is not to be read off the machine: that a one-off
//! was launched (it must not run twice), how things ended, how often they were restarted. One small file per instance in
//! `data_dir/instances`; what is running is asked of the machine itself.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_wire::code::Code;
use berth_wire::id::InstanceId;
use berth_wire::quota::Quota;
use berth_wire::report::{Built, Exit, RefusedQuota, Trouble};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{Health, Moment, Phase, Record, Remains};
use crate::ledger::write_durably;

/// What is remembered of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// It was launched at least once, or was about to be.
    pub launched: bool,
    /// It ended for good.
    pub exited: bool,
    /// It was healthy: after a restart of the agent it stays routed until a check says otherwise.
    pub healthy: bool,
    /// Since when it is in the state that reports show.
    pub since: Option<Timestamp>,
    /// How often it was started again.
    pub restarts: u32,
    /// How often it ran out of memory.
    pub out_of_memory: u32,
    /// Failures in a row.
    pub failures: u32,
    /// How it last ended.
    pub last_exit: Option<Exit>,
    /// Why it is not well.
    pub trouble: Option<Trouble>,
    /// What a build made.
    pub built: Option<Built>,
    /// The quota in force.
    pub quota: Option<Quota>,
    /// The quota that its container could not be given.
    pub refused: Option<RefusedQuota>,
}

impl Memory {
    /// What to remember of a record.
    pub fn of(record: &Record) -> Self {
        Self {
            launched: record.launch > 0,
            exited: record.phase == Phase::Exited,
            healthy: matches!(record.phase, Phase::Running { health: Health::Up, .. }),
            since: Some(record.since),
            restarts: record.restarts,
            out_of_memory: record.out_of_memory,
            failures: record.failures,
            last_exit: record.last_exit,
            trouble: record.trouble.clone(),
            built: record.built.clone(),
            quota: record.quota,
            refused: record.refused.clone(),
        }
    }

    /// Whether losing the difference in a power cut would do harm: a one-off that runs twice, an outcome that is lost.
    pub fn must_be_durable(&self, before: &Memory) -> bool {
        self.launched != before.launched || self.exited != before.exited || self.built != before.built
    }

    /// Puts what is remembered back into a new record. `alive` says whether its container was found; one that was launched, is
    /// not a service and is not there any more ended while nobody watched, and is not run again.
    pub fn restore(self, record: &mut Record, alive: bool, now: Moment) {
        record.launch = u32::from(self.launched);
        record.restarts = self.restarts;
        record.out_of_memory = self.out_of_memory;
        record.failures = self.failures;
        record.last_exit = self.last_exit;
        record.trouble = self.trouble;
        record.built = self.built;
        if alive {
            record.quota = self.quota;
            record.refused = self.refused;
            let health = if self.healthy || !record.is_service() { Health::Up } else { Health::Unknown };
            let well_since = (health == Health::Up).then_some(now.mono);
            record.phase = Phase::Running { started: now.mono, health, well_since };
        } else if self.exited {
            record.phase = Phase::Exited;
        } else if self.launched && !record.is_service() {
            record.phase = Phase::Exited;
            record.last_exit.get_or_insert(Exit::Unknown);
            let (code, what) = match record.is_build() {
                true => (Code::B18, "The build was interrupted when the agent ended; it can be tried again"),
                false => (Code::R18, "It ended while the agent was not there to see how"),
            };
            record.trouble.get_or_insert(Trouble { code, message: what.to_owned(), log_tail: Vec::new() });
        } else if self.launched {
            record.phase = Phase::BackingOff { until: now.mono };
        }
        if let Some(since) = self.since {
            record.since = since;
        }
    }
}

/// The directory of all memories.
#[derive(Debug)]
pub struct Memories {
    directory: PathBuf,
    known: BTreeMap<InstanceId, Memory>,
}

impl Memories {
    /// Reads `data_dir/instances`. A file that cannot be read counts as nothing remembered, and is said.
    ///
    /// # Errors
    /// The directory cannot be made or listed.
    pub fn open(data_dir: &Path) -> std::io::Result<Self> {
        let directory = data_dir.join("instances");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let Some(id) = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok()) else {
                continue;
            };
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let read = std::fs::read(&path).and_then(|b| Ok(serde_json::from_slice(&b)?));
            match read {
                Ok(memory) => {
                    known.insert(id, memory);
                }
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "could not read what was remembered")
                }
            }
        }
        Ok(Self { directory, known })
    }

    /// What is remembered of an instance.
    pub fn get(&self, id: InstanceId) -> Option<&Memory> {
        self.known.get(&id)
    }

    /// Whose memories there are.
    pub fn ids(&self) -> Vec<InstanceId> {
        self.known.keys().copied().collect()
    }

    /// Remembers, if anything changed.
    ///
    /// # Errors
    /// The disk refused; what was remembered before stays.
    pub fn put(&mut self, id: InstanceId, memory: Memory) -> std::io::Result<()> {
        let nothing = Memory::default();
        let before = self.known.get(&id).unwrap_or(&nothing);
        if *before == memory || (!memory.launched && !memory.exited) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&memory)?;
        let path = self.path(id);
        if memory.must_be_durable(before) {
            write_durably(&path, &[&bytes])?;
        } else {
            let staged = path.with_extension("new");
            std::fs::write(&staged, &bytes)?;
            std::fs::rename(&staged, &path)?;
        }
        self.known.insert(id, memory);
        Ok(())
    }

    /// Forgets.
    pub fn remove(&mut self, id: InstanceId) {
        self.known.remove(&id);
        match std::fs::remove_file(self.path(id)) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, instance = %id, "could not remove what was remembered"),
        }
    }

    fn path(&self, id: InstanceId) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

/// A record for an instance as it is found when the agent starts.
pub fn recall(
    mut record: Record,
    memory: Option<Memory>,
    remains: Remains,
    alive: bool,
    now: Moment,
) -> Record {
    record.remains = remains;
    memory.unwrap_or(Memory { launched: alive, ..Memory::default() }).restore(&mut record, alive, now);
    record
}

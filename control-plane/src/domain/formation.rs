//! Formations: how many of each process type, with which quota, and what a change to one means.

use std::collections::BTreeMap;

use berth_wire::api::FormationChange;
use berth_wire::image::AppManifest;
use berth_wire::name::ProcessType;
use berth_wire::quota::{InvalidQuota, Quota};
use serde::{Deserialize, Serialize};

/// Most instances of one process type: what one host is built for.
pub const COUNT_MAX: u32 = 1_000;

/// Most process types of an app. A Procfile with more is a mistake.
pub const PROCESSES_MAX: usize = 64;

/// How many of one process type, and what each may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// How many.
    pub count: u32,
    /// What each may use.
    pub quota: Quota,
}

/// Every process type's scale.
pub type Formation = BTreeMap<ProcessType, Scale>;

/// A change to a formation that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFormation {
    /// Too many instances.
    #[error("{process}: {count} instances are more than the {COUNT_MAX} that one process type may have")]
    Count {
        /// Of which process type.
        process: ProcessType,
        /// How many were asked for.
        count: u32,
    },
    /// The quota cannot be.
    #[error("{process}: {source}")]
    Quota {
        /// Of which process type.
        process: ProcessType,
        /// Why.
        source: InvalidQuota,
    },
    /// The image has no such process.
    #[error("the app has no process type {process}; it has: {known}")]
    Unknown {
        /// Which was asked for.
        process: ProcessType,
        /// Which there are.
        known: String,
    },
    /// `release` runs once per release and has no formation.
    #[error("release runs once before each release is switched to and cannot be scaled")]
    Release,
    /// Too many process types.
    #[error("more than {PROCESSES_MAX} process types")]
    TooMany,
}

/// The formation after changes. `manifest` is the image's, if there is one yet: process types it does not know are refused.
///
/// # Errors
/// The first change that cannot be.
pub fn change(
    old: &Formation,
    changes: &[FormationChange],
    manifest: Option<&AppManifest>,
) -> Result<Formation, InvalidFormation> {
    let mut new = old.clone();
    for change in changes {
        let process = &change.process;
        if *process == ProcessType::release() {
            return Err(InvalidFormation::Release);
        }
        check_known(process, manifest)?;
        let scale = new.entry(process.clone()).or_insert(Scale { count: 0, quota: Quota::default() });
        scale.count = change.count.unwrap_or(scale.count);
        scale.quota = change.quota.apply(scale.quota);
        if scale.count > COUNT_MAX {
            return Err(InvalidFormation::Count { process: process.clone(), count: scale.count });
        }
        scale.quota.check().map_err(|source| InvalidFormation::Quota { process: process.clone(), source })?;
    }
    if new.len() > PROCESSES_MAX { Err(InvalidFormation::TooMany) } else { Ok(new) }
}

fn check_known(process: &ProcessType, manifest: Option<&AppManifest>) -> Result<(), InvalidFormation> {
    let Some(manifest) = manifest else { return Ok(()) };
    if manifest.processes.contains_key(process) {
        return Ok(());
    }
    let known: Vec<_> = runnable(manifest).map(ProcessType::as_str).collect();
    Err(InvalidFormation::Unknown { process: process.clone(), known: known.join(", ") })
}

/// The process types of an image that have a formation.
pub fn runnable(manifest: &AppManifest) -> impl Iterator<Item = &ProcessType> {
    manifest.processes.keys().filter(|process| **process != ProcessType::release())
}

/// The formation with every process type of a new image in it. As people know it from Heroku: `web` starts with one
/// instance, the others with none until they are scaled; but an app whose only process type is not `web` starts
/// with one of it, since a push after which nothing runs helps nobody. Process types that left the image keep their
/// scale, in case they come back.
pub fn adopt(old: &Formation, manifest: &AppManifest) -> Formation {
    let mut new = old.clone();
    let only = runnable(manifest).count() == 1;
    for process in runnable(manifest) {
        let count = u32::from(process.is_web() || only);
        new.entry(process.clone()).or_insert(Scale { count, quota: Quota::default() });
    }
    new
}

/// What a change did, for the release's description: `Scale web to 3, worker to 1`.
pub fn describe(old: &Formation, new: &Formation) -> String {
    let (mut scaled, mut requotaed) = (Vec::new(), Vec::new());
    for (process, scale) in new {
        let before = old.get(process);
        if before.is_none_or(|b| b.count != scale.count) {
            scaled.push(format!("{process} to {}", scale.count));
        }
        if before.is_some_and(|b| b.quota != scale.quota)
            || (before.is_none() && scale.quota != Quota::default())
        {
            requotaed.push(process.to_string());
        }
    }
    let mut parts = Vec::new();
    if !scaled.is_empty() {
        parts.push(format!("Scale {}", scaled.join(", ")));
    }
    if !requotaed.is_empty() {
        parts.push(format!("Change quota of {}", requotaed.join(", ")));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_wire::api::{BoundsChange, QuotaChange};
    use berth_wire::quota::MIB;

    fn manifest(processes: &[&str]) -> AppManifest {
        let processes = processes.iter().map(|p| (p.parse().unwrap(), "run".to_owned())).collect();
        AppManifest { processes, ..AppManifest::default() }
    }

    fn scale_to(process: &str, count: u32) -> FormationChange {
        FormationChange {
            process: process.parse().unwrap(),
            count: Some(count),
            quota: QuotaChange::default(),
        }
    }

    #[test]
    fn a_first_image_must_start_one_web_and_nothing_else() {
        let formation = adopt(&Formation::new(), &manifest(&["web", "worker", "release"]));
        let counts: Vec<_> = formation.iter().map(|(p, s)| (p.as_str(), s.count)).collect();
        assert_eq!(counts, [("web", 1), ("worker", 0)]);
    }

    #[test]
    fn an_only_process_type_must_start_even_if_it_is_no_web() {
        let formation = adopt(&Formation::new(), &manifest(&["worker"]));
        assert_eq!(formation[&"worker".parse().unwrap()].count, 1);
    }

    #[test]
    fn a_new_image_must_keep_the_scale_that_was_chosen() {
        let old = change(&Formation::new(), &[scale_to("web", 3)], None).unwrap();
        assert_eq!(adopt(&old, &manifest(&["web"])), old);
    }

    #[test]
    fn an_unknown_process_type_must_be_refused_with_the_known_ones() {
        let error = change(&Formation::new(), &[scale_to("wrker", 1)], Some(&manifest(&["web", "worker"])));
        assert!(error.unwrap_err().to_string().contains("web, worker"));
    }

    #[test]
    fn a_max_below_the_floor_must_lower_the_floor() {
        let max = BoundsChange { floor: None, max: Some(32 * MIB) };
        let quota = QuotaChange { memory_bytes: Some(max), ..QuotaChange::default() };
        let web = FormationChange { process: ProcessType::web(), count: None, quota };
        let new = change(&Formation::new(), &[web], None).unwrap();
        assert_eq!(new[&ProcessType::web()].quota.memory_bytes.floor, 32 * MIB);
    }

    #[test]
    fn a_description_must_name_what_changed() {
        let old = adopt(&Formation::new(), &manifest(&["web", "worker"]));
        let new = change(&old, &[scale_to("web", 3)], None).unwrap();
        assert_eq!(describe(&old, &new), "Scale web to 3");
        assert_eq!(describe(&new, &new), "");
    }
}

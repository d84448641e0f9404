//! Log files' names: which instance a file belongs to, and the way back.

use std::path::{Path, PathBuf};

use berth_wire::id::{AppId, InstanceId};
use berth_wire::name::ProcessType;
use berth_wire::spec::InstanceSpec;

/// Whose log a file is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogName {
    /// The process type.
    pub process: ProcessType,
    /// The `1` of `web.1`.
    pub index: u32,
    /// The instance.
    pub instance: InstanceId,
}

impl LogName {
    /// The name of an instance's log.
    pub fn of(spec: &InstanceSpec) -> Self {
        Self { process: spec.process.clone(), index: spec.index, instance: spec.id }
    }

    /// From a file name, rotated or not; none for anything else.
    pub fn parse(file_name: &str) -> Option<Self> {
        let stem = file_name.strip_suffix(".1").unwrap_or(file_name).strip_suffix(".log")?;
        let mut parts = stem.split('.');
        let (process, index, instance) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            process: process.parse().ok()?,
            index: index.parse().ok()?,
            instance: instance.parse().ok()?,
        })
    }

    /// `web.1`.
    pub fn label(&self) -> String {
        format!("{}.{}", self.process, self.index)
    }

    /// The file's name.
    pub fn file_name(&self) -> String {
        format!("{}.{}.{}.log", self.process, self.index, self.instance)
    }

    /// Whether `web` or `web.1` means it.
    pub fn matches(&self, filter: Option<&str>) -> bool {
        filter.is_none_or(|f| f == self.process.as_str() || f == self.label())
    }
}

/// Where an app's logs are.
pub fn app_dir(logs: &Path, app: AppId) -> PathBuf {
    logs.join(app.to_string())
}

/// Where an instance's log is.
pub fn path_of(logs: &Path, spec: &InstanceSpec) -> PathBuf {
    app_dir(logs, spec.app).join(LogName::of(spec).file_name())
}

/// The rotated neighbour of a log file.
pub fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// Every log in an app's directory that the filter means, in order; none if there is no directory.
pub fn list(app_dir: &Path, filter: Option<&str>) -> Vec<LogName> {
    let entries = std::fs::read_dir(app_dir).into_iter().flatten().flatten();
    let mut names: Vec<LogName> = entries
        .filter_map(|entry| LogName::parse(entry.file_name().to_str()?))
        .filter(|name| name.matches(filter))
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01980000-0000-7000-8000-000000000001";

    #[test]
    fn names_must_survive_the_way_there_and_back() {
        let name = LogName::parse(&format!("web-2_x.13.{ID}.log")).unwrap();
        assert_eq!((name.label().as_str(), name.file_name()), ("web-2_x.13", format!("web-2_x.13.{ID}.log")));
        assert_eq!(LogName::parse(&format!("web-2_x.13.{ID}.log.1")), Some(name));
    }

    #[test]
    fn other_files_must_be_left_alone() {
        for other in [
            "",
            "x",
            "web.1.log",
            &format!("web.1.{ID}.log.2"),
            &format!("../web.1.{ID}.log"),
            &format!("web.1.{ID}.x.log"),
        ] {
            assert_eq!(LogName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_filter_must_mean_a_process_type_or_one_instance() {
        let name = LogName::parse(&format!("web.1.{ID}.log")).unwrap();
        assert!(name.matches(None) && name.matches(Some("web")) && name.matches(Some("web.1")));
        assert!(!name.matches(Some("we")) && !name.matches(Some("web.2")) && !name.matches(Some("worker")));
    }
}

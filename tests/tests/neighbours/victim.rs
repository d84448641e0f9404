//! The app beside the noisy one: under steady load, with a quota that it must be able to use, and the platform under both.

use std::collections::BTreeMap;

use berth_tests::installation::{Installation, both};
use berth_tests::traffic::{Traffic, get};

use crate::VICTIM;

/// The victim, from before the noise to after it.
pub struct Victim<'a> {
    berth: &'a Installation,
    traffic: Traffic,
    instance: serde_json::Value,
    platform: BTreeMap<&'static str, i32>,
}

impl<'a> Victim<'a> {
    /// Puts it under load.
    #[track_caller]
    pub fn under_load(berth: &'a Installation) -> Self {
        let traffic = Traffic::start(berth, VICTIM, "/", 2);
        Self { berth, traffic, instance: instance(berth), platform: platform(berth) }
    }

    /// It can use what its quota says while the neighbour makes its noise: memory, processes, disk.
    #[track_caller]
    pub fn must_have_its_quota(&self) {
        for path in ["/memory?mib=64", "/forks?count=20", "/disk?mib=8", "/log?lines=20&text=heard"] {
            let answer = get(self.berth, VICTIM, path);
            assert_eq!(answer.status, 200, "the victim's {path}: {answer:?}");
        }
    }

    /// Runs Python inside it and wants it to end well.
    #[track_caller]
    pub fn must_run(&self, program: &str) {
        let output = self.berth.berth(&["exec", "-T", "victim:web.1", "--", "python", "-c", program]);
        assert!(output.status.success(), "in the victim: {}", both(&output));
    }

    /// No request failed, the same process runs, nothing is said against it, and the platform's processes are those from before.
    #[track_caller]
    pub fn must_be_well(self) {
        self.traffic.must_not_have_failed();
        let after = instance(self.berth);
        for field in ["id", "restarts", "state", "trouble"] {
            assert_eq!(after[field], self.instance[field], "{field} of the victim changed");
        }
        let events = self.berth.berth_json(&["events", "-n", "1000", "-a", VICTIM]);
        let against: Vec<_> =
            events.as_array().into_iter().flatten().filter(|event| !event["code"].is_null()).collect();
        assert!(against.is_empty(), "the victim is blamed: {against:?}");
        assert_eq!(platform(self.berth), self.platform, "a process of the platform is another");
        self.berth.berth_ok(&["hosts"]);
        let metrics = reqwest::blocking::get(self.berth.agent_metrics_url());
        assert!(metrics.is_ok_and(|answer| answer.status().is_success()), "the agent does not answer");
    }
}

/// The victim's only instance.
#[track_caller]
fn instance(berth: &Installation) -> serde_json::Value {
    let all = berth.berth_json(&["ps", "-a", VICTIM]);
    let one = all.as_array().filter(|all| all.len() == 1).and_then(|all| all.first());
    one.cloned().unwrap_or_else(|| panic!("not one instance of the victim: {all}"))
}

/// Process ids of everything that must outlive a noisy neighbour.
fn platform(berth: &Installation) -> BTreeMap<&'static str, i32> {
    let mut all: BTreeMap<_, _> =
        ["launcher", "control", "agent"].into_iter().map(|name| (name, berth.daemon(name))).collect();
    all.extend(edge(berth).map(|pid| ("edge", pid)));
    all
}

fn edge(berth: &Installation) -> Option<i32> {
    let dir = format!("{}/edge", berth.data.display());
    std::fs::read_dir("/proc").into_iter().flatten().flatten().find_map(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let is_edge = command.contains("/berth-edge ") && !command.contains("berth-launcher ");
        (is_edge && command.contains(&dir)).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    })
}

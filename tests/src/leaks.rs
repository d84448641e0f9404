//! What an installation has lying about in the kernel, counted from outside: every end-to-end test ends with this.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Everything in the kernel that carries an installation's name, and the interfaces and namespaces there are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Leaks {
    things: BTreeSet<String>,
}

impl Leaks {
    /// What is there now of the installation `id`.
    pub fn of(id: &str) -> Self {
        let mut things = BTreeSet::new();
        // nft's names know no dash.
        let underscored = id.replace('-', "_");
        let mut add = |kind: &str, text: &str| {
            for line in text.lines().filter(|line| line.contains(id) || line.contains(&underscored)) {
                things.insert(format!("{kind}: {}", line.trim()));
            }
        };
        add("mount", &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        add("loop device", &printed("losetup", &["-n", "-O", "NAME,BACK-FILE"]));
        add("nft table", &printed("nft", &["list", "tables"]));
        add("address", &printed("ip", &["-o", "address"]));
        add("process", &processes());
        let mut groups = String::new();
        cgroups(Path::new("/sys/fs/cgroup"), &mut groups);
        add("cgroup", &groups);
        Self { things }
    }

    /// How many things of this kind there are.
    pub fn count(&self, kind: &str) -> usize {
        let start = format!("{kind}: ");
        self.things.iter().filter(|thing| thing.starts_with(&start)).count()
    }

    /// What is here and was not there before.
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.things.difference(&before.things).cloned().collect()
    }
}

fn printed(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

fn processes() -> String {
    let this = std::process::id();
    let mut lines = String::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let group = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default().replace('\n', " ");
        if pid != this && !command.is_empty() {
            lines.push_str(&format!(
                "{pid} {} {group}\n",
                String::from_utf8_lossy(&command).replace('\0', " ")
            ));
        }
    }
    lines
}

fn cgroups(dir: &Path, into: &mut String) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            into.push_str(&format!("{}\n", entry.path().display()));
            cgroups(&entry.path(), into);
        }
    }
}

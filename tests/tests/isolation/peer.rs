//! The same attempts in containers of runc's that are set up with Docker's defaults. It tests the tests: an attempt that is refused
//! there, too, is one that somebody else's fences stop, and one that succeeds there is real.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_wire::quota::MIB;
use serde_json::{Value, json};

use crate::docker;
use crate::table::{Case, Peer};

/// Where its containers are; no state of its own beside that.
pub struct Runc {
    dir: PathBuf,
    name: String,
}

impl Runc {
    /// None, and a line that says so, where runc is not installed.
    pub fn find(dir: &Path) -> Option<Self> {
        let found = Command::new("runc").arg("--version").stdout(Stdio::null()).status();
        if found.is_ok_and(|status| status.success()) {
            return Some(Self { dir: dir.to_owned(), name: format!("t-iso-{}", std::process::id()) });
        }
        println!("not run: the attempts against runc; install the packages of tests/debian-packages.txt");
        None
    }

    /// Makes the attempt; it must end as the row says.
    pub fn check(&self, number: usize, case: &Case) -> Result<(), String> {
        let expected = match case.peer {
            Peer::Not(_) => return Ok(()),
            Peer::Held => false,
            Peer::Succeeds => true,
        };
        let code = self.attempt(number, case)?;
        match (code == 0, expected) {
            (succeeded, expected) if succeeded == expected => Ok(()),
            (true, _) => Err("it succeeds, and was to be refused".into()),
            (false, _) => Err(format!("it ends with {code}, and was to succeed")),
        }
    }

    fn attempt(&self, number: usize, case: &Case) -> Result<i32, String> {
        let id = format!("{}-{number}", self.name);
        let bundle = self.dir.join("runc").join(&id);
        fs::create_dir_all(&bundle).map_err(|error| error.to_string())?;
        let config = self.config(&id, case).to_string();
        fs::write(bundle.join("config.json"), config).map_err(|error| error.to_string())?;
        let output = Command::new("runc")
            .arg("--root")
            .arg(self.dir.join("runc-state"))
            .arg("run")
            .arg("--bundle")
            .arg(&bundle)
            .arg(&id)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("runc: {error}"))?;
        // The probe writes nothing there: whatever is said is said by runc.
        if !output.stderr.is_empty() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        output.status.code().ok_or_else(|| "runc was killed".to_owned())
    }

    fn config(&self, id: &str, case: &Case) -> Value {
        let argv: Vec<&str> = ["/bin/probe", case.attempt]
            .into_iter()
            .chain(case.arguments.iter().map(String::as_str))
            .collect();
        let all: Vec<String> = docker::capabilities().into_values().collect();
        let root = case.user == 0;
        let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
        let namespaces = kinds.map(|kind| json!({"type": kind}));
        let effective = if root { all.clone() } else { vec![] };
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": case.user, "gid": case.user},
                "args": argv,
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {"bounding": all, "effective": effective, "permitted": effective},
                "noNewPrivileges": false,
            },
            "root": {"path": self.dir.join("images/plain"), "readonly": true},
            "hostname": "inside",
            "mounts": mounts(),
            "linux": {
                "cgroupsPath": format!("/{}/{id}", self.name),
                "resources": {
                    "devices": devices(),
                    "memory": {"limit": 64 * MIB},
                    "pids": {"limit": 20},
                },
                "namespaces": namespaces,
                "maskedPaths": docker::MASKED,
                "readonlyPaths": docker::READ_ONLY,
                "seccomp": docker::seccomp(),
            },
        })
    }

    /// Removes the group that its containers were in.
    pub fn close(&self) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.name));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.name));
    }
}

/// Docker's own (its documentation, and the OCI runtime specification's defaults).
fn mounts() -> Value {
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    json!([
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
    ])
}

/// Nodes may be made, and the usual ones opened.
fn devices() -> Value {
    let mut rules = vec![
        json!({"allow": false, "access": "rwm"}),
        json!({"allow": true, "type": "c", "access": "m"}),
        json!({"allow": true, "type": "b", "access": "m"}),
    ];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
    }
    json!(rules)
}

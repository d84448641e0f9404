//! One whole Berth on this machine for one test program: its own installation id, data directory and ports, brought up by
//! `demo/one-host.sh --daemons-only`, the same script people run, which also restarts daemons that a test kills.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::census;
use crate::daemons::is_alive;
use crate::leaks::Leaks;

/// A running installation; [`Installation::finish`] takes it down and tells what it left behind.
pub struct Installation {
    /// The installation id: `t-NAME-PID`.
    pub id: String,
    /// Everything it keeps on disk.
    pub data: PathBuf,
    /// Where the edge listens.
    pub edge: SocketAddr,
    /// The API's address.
    pub url: String,
    /// An API token.
    pub token: String,
    script: Child,
    before: Leaks,
}

/// The checkout this test was built in.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Where cargo put the binaries beside this test (`target/debug`).
pub fn binaries() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    this.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default()
}

/// Whether this test may make containers; prints the line that says what was not run otherwise.
pub fn is_root_or_says_so(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run without root: {what}");
    }
    root
}

/// A port of loopback that nobody has at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map(|a| a.port()).unwrap_or_default()
}

impl Installation {
    /// Brings one up and waits until its host has connected and the stack is imported.
    ///
    /// # Errors
    /// What the script printed, when it ended before it was ready.
    pub fn bring_up(name: &str) -> Result<Self, String> {
        let id = format!("t-{name}-{}", std::process::id());
        let data = PathBuf::from("/var/tmp/berth-tests").join(&id);
        fs::create_dir_all(&data).map_err(|e| format!("making {}: {e}", data.display()))?;
        let before = Leaks::of(&id);
        let (api_port, edge_port) = (free_port(), free_port());
        let mut script = Command::new(root().join("demo/one-host.sh"))
            .args(["--daemons-only", "--pool-gib", "6", "--installation", &id])
            .arg("--data")
            .arg(&data)
            .arg("--bin")
            .arg(binaries())
            .arg("--api-port")
            .arg(api_port.to_string())
            .arg("--edge-port")
            .arg(edge_port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("starting demo/one-host.sh: {e}"))?;
        let output = script.stdout.take().ok_or("the script has no output")?;
        let mut said = String::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line == "ready" {
                let token =
                    fs::read_to_string(data.join("admin.token")).map_err(|e| format!("admin.token: {e}"))?;
                return Ok(Self {
                    id,
                    data,
                    edge: SocketAddr::from(([127, 0, 0, 1], edge_port)),
                    url: format!("http://127.0.0.1:{api_port}"),
                    token: token.trim().to_owned(),
                    script,
                    before,
                });
            }
            said.push_str(&line);
            said.push('\n');
        }
        let _ = script.wait();
        Err(format!("demo/one-host.sh ended before it was ready:\n{said}"))
    }

    /// The CLI with this installation's address and token, in a directory of its own making.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.data.join("bin").join(program));
        command.envs(self.environment()).stdin(Stdio::null());
        command
    }

    /// What a shell needs to talk to this installation.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        env.insert("BERTH_URL".into(), self.url.clone());
        env.insert("BERTH_TOKEN".into(), self.token.clone());
        env.insert("BERTH_CONFIG_DIR".into(), self.data.join("cli").display().to_string());
        env
    }

    /// Runs `berth` with these arguments.
    pub fn berth(&self, args: &[&str]) -> Output {
        self.command("berth").args(args).output().unwrap_or_else(|e| panic!("berth {args:?}: {e}"))
    }

    /// Runs `berth` and wants success; answers what it printed.
    #[track_caller]
    pub fn berth_ok(&self, args: &[&str]) -> String {
        let output = self.berth(args);
        let text = both(&output);
        assert!(output.status.success(), "berth {args:?}: {}\n{text}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `berth … --json` and wants JSON.
    #[track_caller]
    pub fn berth_json(&self, args: &[&str]) -> Value {
        let text = self.berth_ok(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("berth {args:?} --json: {e}\n{text}"))
    }

    /// What a path of the API below `/v1` answers.
    ///
    /// # Errors
    /// No answer, another status than 2xx, or no JSON.
    pub fn api(&self, path: &str) -> Result<Value, String> {
        let request = reqwest::blocking::Client::new().get(format!("{}/v1{path}", self.url));
        let answer =
            request.bearer_auth(&self.token).send().and_then(reqwest::blocking::Response::error_for_status);
        let text =
            answer.and_then(reqwest::blocking::Response::text).map_err(|error| format!("{path}: {error}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{path}: {error}: {text}"))
    }

    /// The process id of a daemon that the script keeps: `launcher`, `control`, `agent`. Waits, while it is being started again, until
    /// one lives.
    #[track_caller]
    pub fn daemon(&self, name: &str) -> i32 {
        let file = self.data.join("run").join(format!("{name}.pid"));
        let mut living = None;
        let there = eventually(Duration::from_secs(20), || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            // The file is complete with its newline; a process that was killed and not yet waited for is a zombie.
            living = text.strip_suffix('\n').and_then(|pid| pid.parse().ok()).filter(|pid| is_alive(*pid));
            living.is_some()
        });
        living.filter(|_| there).unwrap_or_else(|| panic!("no living process in {}", file.display()))
    }

    /// The `/metrics` of the agent.
    pub fn agent_metrics_url(&self) -> String {
        let address = fs::read_to_string(self.data.join("agent/metrics.addr")).unwrap_or_default();
        format!("http://{}/metrics", address.trim())
    }

    /// Counts what is there against the spec, then stops everything and answers what is left behind: nothing, one hopes.
    ///
    /// # Errors
    /// One line for each thing that was not as the spec said, or is still there 20 seconds after the end.
    pub fn finish(self) -> Result<(), String> {
        let converged = census::converge(&self);
        let id = self.id.clone();
        let clean = self.end();
        converged.map_err(|wrong| format!("{id} was not what its spec said:\n{wrong}")).and(clean)
    }

    fn end(mut self) -> Result<(), String> {
        if let Some(pid) = rustix::process::Pid::from_raw(self.script.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.script.wait();
        let mut left = Vec::new();
        let clean = eventually(Duration::from_secs(20), || {
            left = Leaks::of(&self.id).since(&self.before);
            left.is_empty()
        });
        if clean {
            fs::remove_dir_all(&self.data).map_err(|e| format!("removing {}: {e}", self.data.display()))
        } else {
            Err(format!(
                "left behind by {} (logs in {}/run):\n{}",
                self.id,
                self.data.display(),
                left.join("\n")
            ))
        }
    }
}

/// Everything a command printed.
pub fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Asks again and again until it is so, or the time is up. The bound is there to end a failing test, it judges no speed.
pub fn eventually(most: Duration, mut so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + most;
    loop {
        if so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

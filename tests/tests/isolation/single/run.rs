//! `berth-agent run`: the same isolation, from a person's command line. Any image, any quota, exit status and signals passed through,
//! and nothing left of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use berth_tests::installation::{binaries, both, eventually};
use berth_tests::leaks::Leaks;
use berth_wire::digest::Digest;
use serde_json::{Value, json};

use crate::stage::Stage;

/// Small, so that each takes a moment only.
const SMALL: [&str; 4] = ["--disk-mib", "16", "--image-mib", "256"];

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn command(stage: &Stage, options: &[&str], root: &Path, argv: &[&str]) -> Command {
    let mut command = Command::new(binaries().join("berth-agent"));
    command.arg("run").args(SMALL).arg("--work-dir").arg(stage.dir.path()).args(options).arg(root);
    if !argv.is_empty() {
        command.arg("--").args(argv);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end and wants nothing left.
fn run(stage: &Stage, options: &[&str], root: &Path, argv: &[&str]) -> Result<Output, String> {
    let child = command(stage, options, root, argv).spawn().map_err(text)?;
    let pid = child.id();
    let output = child.wait_with_output().map_err(text)?;
    nothing_left(stage, pid).map_err(|left| format!("{left}; {}", both(&output)))?;
    Ok(output)
}

/// The kernel lets go of a loop device a moment after the last who had it.
fn nothing_left(stage: &Stage, pid: u32) -> Result<(), String> {
    let name = format!("run-{pid}");
    let work = stage.dir.path().join(format!("berth-{name}"));
    let mut left = Vec::new();
    let clean = eventually(Duration::from_secs(20), || {
        left = Leaks::of(&name).since(&Leaks::default());
        left.is_empty() && !work.exists()
    });
    if clean { Ok(()) } else { Err(format!("left {left:?}; {} is there: {}", work.display(), work.exists())) }
}

fn plain(stage: &Stage) -> PathBuf {
    stage.dir.path().join("images/plain")
}

fn expect(
    stage: &Stage,
    options: &[&str],
    root: &Path,
    argv: &[&str],
    codes: &[i32],
    saying: &str,
) -> Result<Output, String> {
    let output = run(stage, options, root, argv)?;
    let said = both(&output);
    if output.status.code().is_some_and(|code| codes.contains(&code)) && said.contains(saying) {
        Ok(output)
    } else {
        Err(format!("{options:?} {argv:?}: {}, not {codes:?} and {saying:?}: {said}", output.status))
    }
}

/// Exit statuses as a shell has them, and the time of each step.
pub async fn statuses(stage: Arc<Stage>) -> Result<(), String> {
    let root = plain(&stage);
    expect(&stage, &[], &root, &["/bin/probe", "who"], &[200], "")?;
    expect(&stage, &[], &root, &["/bin/absent"], &[127], "R19")?;
    expect(&stage, &[], &root, &["/bin/not-executable"], &[126], "R19")?;
    expect(&stage, &[], &root, &[], &[125], "names none")?;
    expect(&stage, &[], &stage.dir.path().join("absent"), &["/bin/probe"], &[125], "absent")?;
    // What fails halfway through is given back, too: no pool is that small.
    let tiny = Command::new(binaries().join("berth-agent"))
        .args(["run", "--disk-mib", "1", "--image-mib", "1", "--work-dir"])
        .args([stage.dir.path(), &root])
        .args(["--", "/bin/probe"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let pid = tiny.id();
    let tiny = tiny.wait_with_output().map_err(text)?;
    nothing_left(&stage, pid).map_err(|left| format!("{left}; {}", both(&tiny)))?;
    if tiny.status.code() != Some(125) || !both(&tiny).contains("too small") {
        return Err(both(&tiny));
    }
    expect(&stage, &["--pids", "1"], &root, &["/bin/probe"], &[125], "pids")?;
    expect(&stage, &["--cwd", "/absent"], &root, &["/bin/probe"], &[126], "R19")?;
    let told = expect(&stage, &["--json"], &root, &["/bin/probe", "who"], &[200], "")?;
    let line = String::from_utf8_lossy(&told.stderr).lines().last().unwrap_or_default().to_owned();
    let told: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
    let steps = told["steps"].as_array().cloned().unwrap_or_default();
    let timed = steps.iter().all(|step| step["step"].is_string() && step["us"].is_u64());
    if told["exit"]["code"] == 200 && steps.len() >= 3 && timed { Ok(()) } else { Err(line) }
}

/// What is sent to it is the command's.
pub async fn signals(stage: Arc<Stage>) -> Result<(), String> {
    for (signal, number) in [("TERM", 15), ("USR1", 10), ("INT", 2)] {
        let mut child = command(&stage, &["-e", "MARK=x"], &plain(&stage), &["/bin/probe", "wait"])
            .spawn()
            .map_err(text)?;
        let pid = child.id();
        wait_for_probe(pid)?;
        let sent =
            Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().map_err(text)?;
        let status = child.wait().map_err(text)?;
        if !sent.success() || status.code() != Some(128 + number) {
            return Err(format!("SIG{signal}: {status}"));
        }
        nothing_left(&stage, pid)?;
    }
    Ok(())
}

/// The command is executed when a process of the installation's name is the probe.
fn wait_for_probe(pid: u32) -> Result<(), String> {
    let name = format!("run-{pid}");
    let is_there = || {
        let dirs = fs::read_dir("/proc").into_iter().flatten().flatten();
        dirs.map(|entry| entry.path()).any(|dir| {
            let read = |file: &str| fs::read(dir.join(file)).unwrap_or_default();
            read("cmdline").starts_with(b"/bin/probe\0wait\0")
                && String::from_utf8_lossy(&read("cgroup")).contains(&name)
        })
    };
    let came = eventually(Duration::from_secs(20), is_there);
    if came { Ok(()) } else { Err("the command did not start".into()) }
}

/// Flags reach the kernel.
pub async fn quotas(stage: Arc<Stage>) -> Result<(), String> {
    let root = plain(&stage);
    expect(&stage, &["--memory-mib", "64"], &root, &["/bin/probe", "eat memory", "256"], &[137], "R14")?;
    expect(&stage, &["--pids", "20"], &root, &["/bin/probe", "fork without end"], &[200], "")?;
    let full = [libc::EDQUOT, libc::ENOSPC];
    let fill = ["/bin/probe", "fill", "/", "32"];
    expect(&stage, &["--user", "0"], &root, &fill, &full, "")?;
    expect(&stage, &["--open-files", "99"], &root, &["/bin/probe", "limit", "7", "99"], &[200], "")?;
    let log = stage.dir.path().join("run.log");
    let limited = ["--log", &*log.display().to_string(), "--log-lines", "100"];
    expect(&stage, &limited, &root, &["/bin/probe", "say"], &[0], "")?;
    let lines = fs::read_to_string(&log).map_err(text)?;
    if !lines.contains("R22") || lines.lines().count() > 1_000 {
        return Err(format!(
            "{} lines, of which at most some hundred were to be let through",
            lines.lines().count()
        ));
    }
    if stage.host.cgroups.is_unified() {
        return Ok(());
    }
    let high = ["--memory-high-mib", "64"];
    expect(&stage, &high, &root, &["/bin/probe", "who"], &[200], "memory_high_bytes is not enforced")
        .map(drop)
}

/// An image as a directory of blobs.
struct Layout {
    dir: PathBuf,
}

impl Layout {
    fn new(stage: &Stage, name: &str) -> Result<Self, String> {
        let dir = stage.dir.path().join(name);
        fs::create_dir_all(dir.join("blobs/sha256")).map_err(text)?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).map_err(text)?;
        Ok(Self { dir })
    }

    fn blob(&self, bytes: &[u8]) -> Result<Value, String> {
        let digest = Digest::of(bytes);
        fs::write(self.path(&digest), bytes).map_err(text)?;
        Ok(json!({ "digest": digest, "size": bytes.len() }))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// With one layer.
    fn image(&self, layer: &[u8], config: &Value) -> Result<(), String> {
        let rootfs = json!({ "type": "layers", "diff_ids": [Digest::of(layer)] });
        let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": config });
        let manifest = json!({
            "schemaVersion": 2,
            "config": self.blob(config.to_string().as_bytes())?,
            "layers": [self.blob(layer)?],
        });
        let index = json!({ "schemaVersion": 2, "manifests": [self.blob(manifest.to_string().as_bytes())?] });
        fs::write(self.dir.join("index.json"), index.to_string()).map_err(text)
    }
}

fn tar_of(dir: &Path) -> Result<Vec<u8>, String> {
    let tar = Command::new("tar").arg("-C").arg(dir).args(["-cf", "-", "."]).output().map_err(text)?;
    if tar.status.success() { Ok(tar.stdout) } else { Err(both(&tar)) }
}

/// An image says what runs, as whom and where; the command line goes before it; and it is the same as a directory and as a tar.
pub async fn images(stage: Arc<Stage>) -> Result<(), String> {
    let layout = Layout::new(&stage, "layout")?;
    let layer = tar_of(&plain(&stage))?;
    let config = json!({
        "User": "1001:1002", "WorkingDir": "/bin", "Env": ["A=b"], "Entrypoint": ["./probe"],
        "Cmd": ["status", "self", "Uid:", "1001"],
        "Volumes": {"/proc": {}}, "ExposedPorts": {"22/tcp": {}}, "StopSignal": "SIGKILL", "Labels": {"a": "b"},
    });
    layout.image(&layer, &config)?;
    expect(&stage, &[], &layout.dir, &[], &[200], "")?;
    expect(&stage, &["--user", "0"], &layout.dir, &["/bin/probe", "who"], &[0], "")?;
    let packed = stage.dir.path().join("layout.tar");
    fs::write(&packed, tar_of(&layout.dir)?).map_err(text)?;
    expect(&stage, &[], &packed, &[], &[200], "").map(drop)
}

/// Each with what is said about it; the image before it is changed is a good one.
pub async fn hostile_images(stage: Arc<Stage>) -> Result<(), String> {
    let layer = tar_of(&plain(&stage))?;
    let probe = json!({ "Cmd": ["/bin/probe", "who"] });
    for (number, user) in ["root", "1000:", "0 ", "4294967296", "\u{1b}[2J"].into_iter().enumerate() {
        let layout = Layout::new(&stage, &format!("user-{number}"))?;
        layout.image(&layer, &json!({ "User": user, "Cmd": ["/bin/probe", "who"] }))?;
        let output = expect(&stage, &[], &layout.dir, &[], &[125], "--user")?;
        if both(&output).contains('\u{1b}') {
            return Err("an escape sequence came through".into());
        }
    }
    for (number, (config, code, saying)) in [
        (json!({ "Cmd": ["/bin/absent"] }), 127, "R19"),
        (json!({ "Cmd": [""] }), 126, "R19"),
        (json!({ "Cmd": [] }), 125, "names none"),
        (json!({ "Cmd": ["/bin/probe", "who"], "WorkingDir": "/absent/../.." }), 126, "R19"),
        (json!({ "Cmd": ["/bin/probe", "who"], "WorkingDir": "/proc/1/root" }), 126, "R19"),
        (json!({ "Cmd": ["/bin/probe", "who"], "Env": ["A=b\0c"] }), 126, "R19"),
        (json!({ "Cmd": ["/bin/probe", "who"], "Env": [format!("A={}", "x".repeat(3 << 20))] }), 126, "R19"),
        (json!({ "Cmd": "not a list" }), 125, "configuration"),
    ]
    .into_iter()
    .enumerate()
    {
        let layout = Layout::new(&stage, &format!("config-{number}"))?;
        layout.image(&layer, &config)?;
        expect(&stage, &[], &layout.dir, &[], &[code], saying)
            .map_err(|error| format!("{config:.80}: {error}"))?;
    }
    let layout = Layout::new(&stage, "damaged")?;
    layout.image(&layer, &probe)?;
    let blob = layout.path(&Digest::of(&layer));
    fs::write(&blob, [&layer[..], b"x"].concat()).map_err(text)?;
    expect(&stage, &[], &layout.dir, &[], &[125], "damaged or forged")?;
    fs::remove_file(&blob).and_then(|()| symlink("/etc/shadow", &blob)).map_err(text)?;
    expect(&stage, &[], &layout.dir, &[], &[125], "os error 40")?;
    fs::write(layout.dir.join("index.json"), r#"{"manifests": [{"digest": "sha256:../../x", "size": 1}]}"#)
        .map_err(text)?;
    expect(&stage, &[], &layout.dir, &[], &[125], "index")?;
    let layout = Layout::new(&stage, "layers")?;
    layout.image(b"this is no tar, but long enough to be taken for one".repeat(20).as_slice(), &probe)?;
    expect(&stage, &[], &layout.dir, &[], &[125], "a layer is refused").map(drop)
}

//! Commands that people run: one-offs and commands inside instances, with pipes and with a terminal, and what becomes of them
//! when somebody or something goes away.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use berth_tests::installation::{Installation, both, eventually};
use berth_tests::repository::Repository;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_one_off_command_must_get_its_input_and_give_its_status", one_off),
    ("ten_megabytes_through_a_command_must_come_back_as_they_were", binary),
    ("a_command_in_an_instance_must_be_confined_as_the_app_is", confined),
    ("a_command_on_a_terminal_must_have_a_size_and_keys_that_interrupt", terminal),
    ("a_lost_connection_must_end_the_command", lost),
    ("a_command_that_cannot_be_run_must_be_refused_with_a_code", refused),
    ("a_detached_command_must_go_on_and_write_its_log", detached),
];

/// The app of all scenarios here: pushed by the first that needs it.
fn app(berth: &Installation) -> &'static str {
    use std::sync::OnceLock;
    static PUSHED: OnceLock<&str> = OnceLock::new();
    PUSHED.get_or_init(|| {
        let app = "e2e-exec";
        Repository::of_app(berth, app, "tests/apps/probe").push_ok();
        app
    })
}

/// Runs `berth` with this input.
fn piped(berth: &Installation, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = berth
        .command("berth")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("berth {arguments:?}: {e}"));
    let mut stdin = child.stdin.take().unwrap_or_else(|| panic!("no input"));
    let input = input.to_vec();
    // A command may end before it has read everything.
    let feeding = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap_or_else(|e| panic!("berth {arguments:?}: {e}"));
    feeding.join().unwrap_or_else(|_| panic!("the input could not be fed"));
    output
}

#[track_caller]
fn status(output: &Output, wanted: i32) -> String {
    assert_eq!(output.status.code(), Some(wanted), "{}", both(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn one_off(berth: &Installation) {
    let app = app(berth);
    assert_eq!(status(&piped(berth, &["run", "-a", app, "cat"], b"hi\n"), 0), "hi\n");
    let apart = piped(berth, &["run", "-a", app, "echo out; echo err >&2; exit 7"], b"");
    assert_eq!(status(&apart, 7), "out\n");
    assert_eq!(String::from_utf8_lossy(&apart.stderr), "err\n");
    let killed = piped(berth, &["run", "-a", app, "--", "sh", "-c", "kill -9 $$"], b"");
    status(&killed, 137);
    let variables =
        piped(berth, &["run", "-a", app, "-e", "GREETING=a b", "echo $GREETING-$BERTH_INSTANCE"], b"");
    assert!(status(&variables, 0).starts_with("a b-run."), "{}", both(&variables));
    let quota = piped(berth, &["run", "-a", app, "--memory", "64M", "head -c 200M /dev/zero | tail"], b"");
    assert_ne!(quota.status.code(), Some(0), "more memory than it may have");
    // Reopening them is what /dev/stdout in a script does.
    let reopened = piped(berth, &["run", "-a", app, "echo again > /dev/stdout"], b"");
    assert_eq!(status(&reopened, 0), "again\n");
}

fn binary(berth: &Installation) {
    let app = app(berth);
    // Every byte there is, in no order that lines would have.
    let bytes: Vec<u8> = (0..10_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for arguments in [&["run", "-a", app, "cat"][..], &["exec", app, "--", "cat"]] {
        let output = piped(berth, arguments, &bytes);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout.len(), bytes.len());
        assert!(output.stdout == bytes, "{arguments:?}: bytes were changed");
    }
}

fn confined(berth: &Installation) {
    let app = app(berth);
    let script = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/$1/status; grep -E 'files|core|processes' /proc/$1/limits; \
                  for ns in user mnt pid net ipc uts cgroup; do readlink /proc/$1/ns/$ns; done; cat /proc/$1/cgroup";
    let of = |process: &str| {
        let arguments = ["exec", app, "--", "sh", "-c", script, "sh", process];
        status(&piped(berth, &arguments, b""), 0)
    };
    // The app's own command is always process 2.
    let (own, first) = (of("self"), of("2"));
    assert!(first.contains("CapEff:\t0000000000000000") && first.contains("Seccomp:\t2"), "{first}");
    assert_eq!(own, first);
    let open = piped(berth, &["exec", app, "--", "sh", "-c", "ls /proc/$$/fd"], b"");
    assert_eq!(status(&open, 0).split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
    let same =
        piped(berth, &["exec", &format!("{app}:web.1"), "--", "sh", "-c", "pwd; echo $BERTH_INSTANCE"], b"");
    assert_eq!(status(&same, 0), "/app\nweb.1\n");
}

/// `berth` on a terminal of its own.
struct OnTerminal {
    child: Child,
    master: std::fs::File,
    seen: String,
}

impl OnTerminal {
    fn start(berth: &Installation, arguments: &[&str], (rows, columns): (u16, u16)) -> Self {
        let opened = nix::pty::openpty(None, None).unwrap_or_else(|e| panic!("openpty: {e}"));
        let this = Self::resize_of(&opened.master, rows, columns);
        this.unwrap_or_else(|e| panic!("the terminal's size: {e}"));
        let end = || Stdio::from(opened.slave.try_clone().unwrap_or_else(|e| panic!("the terminal: {e}")));
        let mut command: Command = berth.command("berth");
        command.args(arguments).env("TERM", "xterm-test").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap_or_else(|e| panic!("berth {arguments:?}: {e}"));
        Self { child, master: opened.master.into(), seen: String::new() }
    }

    fn resize_of(master: impl std::os::fd::AsFd, rows: u16, columns: u16) -> rustix::io::Result<()> {
        tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).unwrap_or_else(|| panic!("no pid"))
    }

    /// Reads until this has been shown; what was before it is forgotten.
    #[track_caller]
    fn until(&mut self, wanted: &str) {
        let mut piece = [0; 1024];
        loop {
            if let Some(at) = self.seen.find(wanted) {
                self.seen.drain(..at + wanted.len());
                return;
            }
            let count = self.master.read(&mut piece).unwrap_or(0);
            assert!(count > 0, "{wanted:?} was never shown, but:\n{}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap_or_else(|e| panic!("typing {keys:?}: {e}"));
    }

    #[track_caller]
    fn ends_with(mut self, wanted: i32) {
        let status = self.child.wait().unwrap_or_else(|e| panic!("waiting: {e}"));
        assert_eq!(status.code(), Some(wanted), "{}", self.seen);
    }
}

fn terminal(berth: &Installation) {
    let app = app(berth);
    for arguments in [&["run", "-a", app, "--", "sh"][..], &["exec", app, "--", "sh"]] {
        let mut person = OnTerminal::start(berth, arguments, (31, 97));
        person.type_in("stty size; tty; echo kind-$TERM\n");
        person.until("31 97");
        person.until("/dev/pts/");
        person.until("kind-xterm-test");
        // A shell's own prompt comes back after an interrupted command; the shell itself lives on.
        person.type_in("echo be''fore; sleep 1000; echo after-$?\n");
        person.until("before");
        person.type_in("\u{3}");
        person.type_in("echo still-$((40 + 2))\n");
        person.until("still-42");
        OnTerminal::resize_of(person.master.as_fd(), 40, 120).unwrap_or_else(|e| panic!("resizing: {e}"));
        // Not its controlling terminal, so the kernel tells nobody.
        kill_process(person.pid(), Signal::WINCH).unwrap_or_else(|e| panic!("SIGWINCH: {e}"));
        person.type_in("until [ \"$(stty size)\" = '40 120' ]; do :; done; echo grown-$((1 + 1))\n");
        person.until("grown-2");
        person.type_in("exit 9\n");
        person.ends_with(9);
    }
}

/// How many processes inside the instance carry this word in their command line, asked from inside.
fn count(berth: &Installation, app: &str, word: &str) -> usize {
    let script = format!("grep -lz '^{word}$' /proc/[0-9]*/cmdline 2>/dev/null | wc -l");
    let output = piped(berth, &["exec", app, "--", "sh", "-c", &script], b"");
    status(&output, 0).trim().parse().unwrap_or(usize::MAX)
}

fn lost(berth: &Installation) {
    let app = app(berth);
    let start = |arguments: &[&str]| {
        let spawned =
            berth.command("berth").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|e| panic!("berth {arguments:?}: {e}"));
        let output = child.stdout.as_mut().unwrap_or_else(|| panic!("no output"));
        let (mut line, mut byte) = (String::new(), [0]);
        while !line.ends_with('\n') {
            output.read_exact(&mut byte).unwrap_or_else(|e| panic!("berth {arguments:?} said {line:?}: {e}"));
            line.push(char::from(byte[0]));
        }
        (child, line.trim().to_owned())
    };
    let wait = Duration::from_secs(30);
    let (mut inside, _) = start(&["exec", app, "--", "sh", "-c", "echo ready; sleep 3601"]);
    assert_eq!(count(berth, app, "3601"), 1);
    inside.kill().and_then(|()| inside.wait().map(drop)).unwrap_or_else(|e| panic!("killing berth: {e}"));
    assert!(eventually(wait, || count(berth, app, "3601") == 0), "the command outlived its connection");
    // One that does not care about SIGHUP.
    let script = "trap '' HUP; echo $BERTH_INSTANCE; sleep 3602; sleep 3603";
    let (mut stubborn, name) = start(&["run", "-a", app, script]);
    assert!(berth.berth_ok(&["ps", "-a", app]).contains(&name), "{name} is not listed");
    stubborn.kill().and_then(|()| stubborn.wait().map(drop)).unwrap_or_else(|e| panic!("killing berth: {e}"));
    let gone = || !berth.berth_ok(&["ps", "-a", app]).contains(&name);
    assert!(eventually(wait, gone), "the one-off outlived its connection");
    // Without a terminal Ctrl-C is the command's.
    let (interrupted, _) = start(&[
        "run",
        "-a",
        app,
        "--",
        "sh",
        "-c",
        "trap 'exit 42' INT; echo ready; while :; do sleep 0.1; done",
    ]);
    let pid = Pid::from_raw(interrupted.id().cast_signed()).unwrap_or_else(|| panic!("no pid"));
    kill_process(pid, Signal::INT).unwrap_or_else(|e| panic!("SIGINT: {e}"));
    status(&interrupted.wait_with_output().unwrap_or_else(|e| panic!("waiting: {e}")), 42);
}

fn refused(berth: &Installation) {
    let app = app(berth);
    let cases: [(&[&str], i32, &str); 7] = [
        (&["run", "-a", app, "--", "no-such-program", "x"], 127, "R19"),
        (&["run", "-a", app, "--", "/app/VERSION", "x"], 126, "R19"),
        (&["exec", app, "--", "no-such-program"], 127, "R19"),
        (&["exec", app, "--", "/app/VERSION"], 126, "R19"),
        (&["exec", &format!("{app}:web.77"), "--", "true"], 125, "A12"),
        (&["exec", "e2e-no-such-app", "--", "true"], 125, "A12"),
        (&["run", "-a", app, "--memory", "1K", "true"], 125, "A13"),
    ];
    for (arguments, wanted, code) in cases {
        let output = piped(berth, arguments, b"");
        status(&output, wanted);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(code), "{arguments:?}: {said}");
    }
    let down = "e2e-exec-down";
    Repository::of_app(berth, down, "tests/apps/probe").push_ok();
    berth.berth_ok(&["scale", "web=0", "-a", down]);
    let output = piped(berth, &["exec", down, "--", "true"], b"");
    status(&output, 125);
    // One that dies while the command runs in it takes the command along.
    let mut dying = berth
        .command("berth")
        .args(["exec", app, "--", "sh", "-c", "echo ready; kill -TERM 2; sleep 3600"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("berth exec: {e}"));
    let ended = dying.wait().unwrap_or_else(|e| panic!("waiting: {e}"));
    assert_eq!(ended.code(), Some(137));
    assert!(eventually(Duration::from_secs(30), || {
        piped(berth, &["exec", app, "--", "true"], b"").status.success()
    }));
}

fn detached(berth: &Installation) {
    let app = app(berth);
    let script = "echo detached-$((20 + 3)); sleep 1; echo done-$BERTH_INSTANCE";
    // Options after the command would be the command's.
    let text = berth.berth_ok(&["--json", "run", "-a", app, "--detach", script]);
    let made: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let name = made["name"].as_str().unwrap_or_default().to_owned();
    assert!(name.starts_with("run."), "{made}");
    let logged = || berth.berth_ok(&["logs", "-n", "500", "-a", app]);
    let wanted = format!("app[{name}]: done-{name}");
    assert!(eventually(Duration::from_secs(30), || logged().contains(&wanted)), "{}", logged());
    assert!(logged().contains("detached-23"));
    let events = berth.berth_ok(&["events", "-a", app]);
    assert!(events.contains("(detached)"), "{events}");
    assert!(eventually(Duration::from_secs(20), || !berth.berth_ok(&["ps", "-a", app]).contains(&name)));
}

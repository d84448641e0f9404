//! A noisy neighbour: a one-off of its own quota that goes on until it is told to end, and the event that names it.

use std::process::{Child, Output, Stdio};
use std::time::Duration;

use berth_tests::installation::{Installation, both, eventually};

use crate::NEIGHBOUR;
use crate::victim::Victim;

/// How long an event may take: two looks of the agent, on a machine that is busy with worse. Ends a failing test, judges no speed.
const NAMED_WITHIN: Duration = Duration::from_secs(45);

/// What a neighbour does, what it may use, what it is called.
pub struct Attack {
    /// The function of `attack.py`.
    pub kind: &'static str,
    /// Options of `berth run`.
    pub quota: &'static [&'static str],
    /// The code that the event must have.
    pub code: &'static str,
}

impl Attack {
    /// Runs it beside a victim: named while it goes on, bearable for as long as that took, and over when its input ends.
    #[track_caller]
    pub fn must_be_borne_and_named(&self, berth: &Installation) {
        self.must_be_borne(berth, |_| {});
    }

    /// The same, with more to see meanwhile.
    #[track_caller]
    pub fn must_be_borne(&self, berth: &Installation, meanwhile: impl FnOnce(&Victim<'_>)) {
        let victim = Victim::under_load(berth);
        let before = named(berth, self.code);
        let running = self.start(berth);
        let came = eventually(NAMED_WITHIN, || named(berth, self.code) > before);
        victim.must_have_its_quota();
        meanwhile(&victim);
        let said = both(&self.end(running));
        let events = berth.berth_ok(&["events", "-a", NEIGHBOUR]);
        assert!(came, "no event with {} names it:\n{events}\nit said:\n{said}", self.code);
        let log = berth.berth_ok(&["logs", "-n", "1000", "-a", NEIGHBOUR]);
        assert!(
            log.contains(&format!("Error {} (", self.code)),
            "the log does not name {}:\n{log}",
            self.code
        );
        victim.must_be_well();
    }

    fn start(&self, berth: &Installation) -> Child {
        let arguments =
            [&["run", "-T", "-a", NEIGHBOUR], self.quota, &["--", "python", "attack.py", self.kind]];
        let mut command = berth.command("berth");
        command.args(arguments.concat()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap_or_else(|e| panic!("berth run: {e}"))
    }

    /// Its standard input ends, and so does it; unless it has already.
    fn end(&self, mut running: Child) -> Output {
        drop(running.stdin.take());
        running.wait_with_output().unwrap_or_else(|e| panic!("the end of {}: {e}", self.kind))
    }
}

/// How many events of one-offs there are with this code.
pub fn named(berth: &Installation, code: &str) -> usize {
    let events = berth.berth_json(&["events", "-n", "1000", "-a", NEIGHBOUR]);
    let of_run = |event: &&serde_json::Value| {
        event["code"] == code && event["process"].as_str().is_some_and(|process| process.starts_with("run."))
    };
    events.as_array().map_or(0, |events| events.iter().filter(of_run).count())
}

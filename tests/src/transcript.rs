//! Replays a page of documentation: the `console` blocks of a Markdown file are typed into one bash, and what comes back
//! is compared. What the page is about does not belong here.
//!
//! In a block, `$ ` begins a command and `> ` continues it; `# exits with N` at its end expects that status (0 otherwise);
//! all other lines are the output. `…` in a line stands for any text; a line of `…` alone for any number of lines.
//! Runs of blanks count as one, so that a table's columns may differ in width; standard error counts as output.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Longest that one command may take: a first build downloads a toolchain.
const COMMAND_MAX: Duration = Duration::from_secs(600);
/// Lines of output that wait for the comparison; the shell waits when there are more.
const LINES_WAITING_MAX: usize = 1_000;
/// What the shell prints after each command, before its status.
const MARK: &str = "--8<-- end of command, status";

/// One command and what is to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it is in the page, from 1.
    pub line: usize,
    /// What is typed; several lines if it goes on.
    pub command: String,
    /// The status it is to exit with.
    pub status: i32,
    /// The lines that are to come back.
    pub output: Vec<String>,
}

/// Finds the commands of all `console` blocks.
///
/// # Errors
/// A block that begins with something else than a command, or is not closed.
pub fn parse(markdown: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block_began = None;
    let mut steps_before = 0;
    for (number, line) in (1..).zip(markdown.lines()) {
        let Some(began) = block_began else {
            if line == "```console" {
                (block_began, steps_before) = (Some(number), steps.len());
            }
            continue;
        };
        if line == "```" {
            block_began = None;
        } else if let Some(command) = line.strip_prefix("$ ") {
            let (command, status) = split_status(command);
            steps.push(Step { line: number, command: command.to_owned(), status, output: Vec::new() });
        } else {
            let step = steps
                .get_mut(steps_before..)
                .and_then(<[Step]>::last_mut)
                .ok_or_else(|| format!("line {number}: the block of line {began} does not begin with $"))?;
            match line.strip_prefix('>').filter(|rest| rest.is_empty() || rest.starts_with(' ')) {
                Some(rest) if step.output.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(rest.strip_prefix(' ').unwrap_or(rest));
                }
                _ => step.output.push(line.to_owned()),
            }
        }
    }
    match block_began {
        Some(began) => Err(format!("the block of line {began} is not closed")),
        None => Ok(steps),
    }
}

fn split_status(command: &str) -> (&str, i32) {
    match command.split_once("# exits with ") {
        Some((before, status)) => match status.trim().parse() {
            Ok(status) => (before.trim_end(), status),
            Err(_) => (command, 0),
        },
        None => (command, 0),
    }
}

/// Types every command of the page into one bash that starts in `cwd` with `env` as its whole environment, and compares.
///
/// # Errors
/// The first command that answered otherwise, with what was wanted and what came.
pub fn replay(markdown: &str, env: &BTreeMap<String, String>, cwd: &Path) -> Result<(), String> {
    let mut shell = Shell::start(env, cwd)?;
    for step in parse(markdown)? {
        let (output, status) =
            shell.run(&step.command).map_err(|error| format!("line {}: {error}", step.line))?;
        if status != step.status || !lines_match(&step.output, &output) {
            return Err(format!(
                "line {}: $ {}\nwanted (status {}):\n{}\ncame (status {status}):\n{}\n",
                step.line,
                step.command,
                step.status,
                step.output.join("\n"),
                output.join("\n")
            ));
        }
    }
    Ok(())
}

/// One bash for the whole page, so that `cd` and variables stay.
struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    fn start(env: &BTreeMap<String, String>, cwd: &Path) -> Result<Self, String> {
        // The page is a transcript of a shell: only a shell can replay it. What this process has in its environment
        // is not part of the page.
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .env_clear()
            .envs(env)
            .current_dir(cwd)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("starting bash: {error}"))?;
        let (input, output) = match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => (input, output),
            _ => return Err("bash has no input or output".to_owned()),
        };
        let (sender, lines) = sync_channel(LINES_WAITING_MAX);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                if sender.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Ok(Self { child, input, lines })
    }

    /// Types one command; answers its lines, without the blank ones at their end, and its status.
    fn run(&mut self, command: &str) -> Result<(Vec<String>, i32), String> {
        // The command must not read the rest of the page from the shell's own input.
        let typed = format!("{{ {command}\n}} </dev/null 2>&1; printf '\\n{MARK} %d\\n' $?\n");
        self.input
            .write_all(typed.as_bytes())
            .and_then(|()| self.input.flush())
            .map_err(|error| format!("typing {command:?}: {error}"))?;
        let end = Instant::now() + COMMAND_MAX;
        let mut output = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).map_err(|error| {
                format!("$ {command}\ndid not end ({error}); until then it printed:\n{}", output.join("\n"))
            })?;
            if let Some(status) = line.strip_prefix(MARK) {
                while output.last().is_some_and(String::is_empty) {
                    output.pop();
                }
                let status = status.trim().parse().map_err(|e| format!("the status {status:?}: {e}"))?;
                return Ok((output, status));
            }
            output.push(as_seen(&line));
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A line as a terminal would show it: without colour, and after the last carriage return.
fn as_seen(line: &str) -> String {
    let mut seen = String::new();
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' if characters.peek() == Some(&'[') => {
                // ECMA-48 5.4: a control sequence ends with a byte of 0x40 to 0x7e; `[` itself comes first.
                characters.next();
                for last in characters.by_ref() {
                    if ('\x40'..='\x7e').contains(&last) {
                        break;
                    }
                }
            }
            '\r' => seen.clear(),
            other => seen.push(other),
        }
    }
    seen.trim_end().to_owned()
}

/// Whether the lines are as wanted, `…` standing for whatever makes them so.
fn lines_match(wanted: &[String], came: &[String]) -> bool {
    match wanted.split_first() {
        None => came.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=came.len()).any(|skipped| lines_match(rest, &came[skipped..]))
        }
        Some((first, rest)) => came
            .split_first()
            .is_some_and(|(line, others)| line_matches(first, line) && lines_match(rest, others)),
    }
}

fn line_matches(wanted: &str, came: &str) -> bool {
    let single = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (wanted, came) = (single(wanted), single(came));
    let mut parts = wanted.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = came.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(page: &str) -> Result<(), String> {
        let page = format!("# A page\n\n```console\n{page}\n```\n");
        replay(&page, &BTreeMap::from([("GREETING".into(), "ahoy".into())]), Path::new("/"))
    }

    #[test]
    fn a_page_must_be_cut_into_commands_and_their_output() {
        let page = "text\n```sh\n$ not this\n```\n```console\n$ cat <<X\n> a\n>\n> b\nout\n> quoted\n$ false # exits with 1\n```\n";
        let steps = parse(page).unwrap();
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[0].command, "cat <<X\na\n\nb");
        assert_eq!(steps[0].output, ["out", "> quoted"]);
        assert_eq!((steps[1].command.as_str(), steps[1].status), ("false", 1));
        assert!(parse("```console\nout\n```").unwrap_err().contains("does not begin"));
        assert!(parse("```console\n$ a\n").unwrap_err().contains("not closed"));
    }

    #[test]
    fn what_is_as_written_must_pass() {
        check("$ echo hello\nhello\n$ cd /tmp && X=1\n$ pwd; echo $X $GREETING\n/tmp\n1 ahoy").unwrap();
        check("$ echo a; echo b >&2; echo; exit 3 | cat; (exit 3) # exits with 3\na\nb").unwrap();
        check("$ cat <<'EOF'\n> one\n>   two $X\n> EOF\none\n  two $X").unwrap();
        check("$ seq 5\n1\n…\n5\n$ seq 5\n…\n$ echo web.1 v3 healthy\nweb.1   v…   healthy").unwrap();
        check("$ printf '10%%\\r\\033[32mdone\\033[0m\\r\\n'\ndone").unwrap();
    }

    #[test]
    fn what_is_not_as_written_must_fail_and_be_shown() {
        for page in
            ["$ echo a\nb", "$ echo a", "$ true\na", "$ false", "$ true # exits with 1", "$ seq 5\n1\n…\n4"]
        {
            let error = check(page).unwrap_err();
            assert!(error.contains("line 4") && error.contains("wanted"), "{page}: {error}");
        }
        assert!(check("$ exit 1").unwrap_err().contains("did not end"));
    }

    #[test]
    fn an_ellipsis_must_stand_for_any_text_in_a_line() {
        for (wanted, came, so) in [
            ("a…c", "abc", true),
            ("a…c", "abcd", false),
            ("…", "x", true),
            ("a…b…a", "aba", true),
            ("a…a", "a", false),
            ("x …", "x", false),
            ("…x…", "axb", true),
        ] {
            assert_eq!(line_matches(wanted, came), so, "{wanted} {came}");
        }
    }

    #[test]
    fn the_tutorial_must_be_a_page_that_can_be_replayed() {
        let page = std::fs::read_to_string(crate::installation::root().join("docs/tutorial.md")).unwrap();
        let steps = parse(&page).unwrap();
        for word in
            ["login", "create", "push", "logs", "scale", "config", "R16", "rollback", "explain", "destroy"]
        {
            assert!(
                steps
                    .iter()
                    .any(|step| step.command.contains(word) || step.output.iter().any(|l| l.contains(word))),
                "{word}"
            );
        }
    }
}

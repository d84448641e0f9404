//! The receive hooks: `berthd` run by git under the name `pre-receive` or `post-receive`. A hook decides nothing. It
//! tells the running `berthd` what is being pushed, prints what it is told, and runs `git archive`: only a hook sees
//! the objects of a push that was not accepted yet (githooks(5), pre-receive: the quarantine).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use nix::sys::resource::{Resource, setrlimit};

use super::protocol::{
    ENV_DIR, ENV_PUSH, ENV_SECRET, Examined, FRAME_BYTES_MAX, Hello, LINE_BYTES_MAX, Order, REFS_MAX, Stage,
    TreeLimits, Update,
};
use super::socket;

/// Memory git may use to read a tree: a tree at its limits needs far less.
const GIT_MEMORY_BYTES_MAX: u64 = 1 << 30;

/// The hook that a program name asks for, if it is one.
pub fn stage(program: &str) -> Option<Stage> {
    match Path::new(program).file_name()?.to_str()? {
        "pre-receive" => Some(Stage::PreReceive),
        "post-receive" => Some(Stage::PostReceive),
        _ => None,
    }
}

/// Runs a hook: refs on standard input, words for the pusher on standard output.
pub fn run(stage: Stage) -> ExitCode {
    match converse(stage) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            println!(" !     Berth's control plane went away in the middle of this push ({error}).");
            println!(" !     Push again: a build that was under way goes on by itself and is picked up.");
            ExitCode::FAILURE
        }
    }
}

fn converse(stage: Stage) -> io::Result<u8> {
    let env = |name: &str| {
        std::env::var(name)
            .map_err(|_| io::Error::other(format!("{name} is not set: this is a hook, run by git")))
    };
    let push = env(ENV_PUSH)?.parse().map_err(io::Error::other)?;
    let hello = Hello { push, secret: env(ENV_SECRET)?, stage, updates: updates(io::stdin().lock())? };
    let mut stream = socket::connect(Path::new(&env(ENV_DIR)?))?;
    send(&mut stream, &hello)?;
    let mut orders = BufReader::new(stream.try_clone()?);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut orders).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match serde_json::from_slice(&line)? {
            Order::Say(text) => {
                let mut out = io::stdout().lock();
                // A pusher that hung up is no reason to stop: the release has to be made all the same.
                let _ = writeln!(out, "{text}").and_then(|()| out.flush());
            }
            Order::Archive { commit, limits } => archive(&mut stream, &commit, limits)?,
            Order::Exit(code) => return Ok(code),
        }
    }
}

/// `OLD NEW REF` lines. Reads all, keeps few: git waits for the hook to take them.
fn updates(input: impl BufRead) -> io::Result<Vec<Update>> {
    let mut kept = Vec::new();
    for line in input.lines() {
        let line = line?;
        let mut fields = line.splitn(3, ' ');
        let (Some(old), Some(new), Some(reference)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(io::Error::other("git gave the hook a line that is not OLD NEW REF"));
        };
        if kept.len() <= REFS_MAX {
            let reference = reference.chars().take(500).collect();
            kept.push(Update { old: old.to_owned(), new: new.to_owned(), reference });
        }
    }
    Ok(kept)
}

fn send(stream: &mut UnixStream, message: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn archive(stream: &mut UnixStream, commit: &str, limits: TreeLimits) -> io::Result<()> {
    // Inherited by git; the hook itself needs almost nothing.
    setrlimit(Resource::RLIMIT_DATA, GIT_MEMORY_BYTES_MAX, GIT_MEMORY_BYTES_MAX).map_err(io::Error::from)?;
    let examined = examine(commit, limits)?;
    send(stream, &examined)?;
    if !examined.is_sendable(limits) {
        return Ok(());
    }
    let mut git = git(&["archive", "--format=tar", commit])?;
    let mut output = git.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let length = output.read(&mut buffer)?;
        stream.write_all(&u32::try_from(length).map_err(io::Error::other)?.to_be_bytes())?;
        stream.write_all(&buffer[..length])?;
        if length == 0 {
            break;
        }
    }
    stream.write_all(&[u8::from(!git.wait()?.success())])
}

fn examine(commit: &str, limits: TreeLimits) -> io::Result<Examined> {
    let mut git = git(&["ls-tree", "-r", "-l", "-z", commit])?;
    let mut output = BufReader::new(git.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
    let mut examined = Examined::default();
    let mut entry = Vec::new();
    while !examined.is_too_large(limits) {
        entry.clear();
        // A path is at most PATH_MAX for anything that can be checked out.
        (&mut output).take(64 << 10).read_until(0, &mut entry)?;
        if entry.is_empty() {
            examined.failed = !git.wait()?.success();
            return Ok(examined);
        }
        examined.count(&entry);
    }
    git.kill()?;
    git.wait()?;
    Ok(examined)
}

fn git(arguments: &[&str]) -> io::Result<Child> {
    Command::new("git").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_must_be_read_to_the_end_and_kept_within_bounds() {
        let zero = "0".repeat(40);
        let lines: String = (0..REFS_MAX + 50).map(|n| format!("{zero} {zero} refs/heads/b {n}\n")).collect();
        let kept = updates(lines.as_bytes()).unwrap();
        assert_eq!(kept.len(), REFS_MAX + 1);
        assert_eq!(kept[0].reference, "refs/heads/b 0");
        assert!(updates("nonsense\n".as_bytes()).is_err());
    }

    #[test]
    fn only_a_hooks_name_must_make_a_hook() {
        assert_eq!(stage("hooks/pre-receive"), Some(Stage::PreReceive));
        assert_eq!(stage("/x/post-receive"), Some(Stage::PostReceive));
        assert_eq!(stage("berthd"), None);
    }
}

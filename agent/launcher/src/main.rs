//! The command line, and what follows the loop's end: exit, or becoming the program that was put in this one's place.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use berth_launcher::edge::{Edge, EdgeConfig};
use berth_launcher::handover::Inherited;
use berth_launcher::server::{End, Server};

const USAGE: &str =
    "usage: berth-launcher --dir DIR [--edge-listen ADDRESS --edge-user UID -- EDGE ARGUMENTS…]";

struct Arguments {
    dir: PathBuf,
    edge: Option<EdgeConfig>,
}

fn main() -> ExitCode {
    let all: Vec<OsString> = std::env::args_os().collect();
    let arguments = match parse(all.iter().skip(1).map(|a| a.to_string_lossy().into_owned())) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("berth-launcher: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(arguments, &all) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-launcher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments, all: &[OsString]) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "D10: it must run as root"));
    }
    // Where the program is now: an upgrade puts the new one at the same place.
    let program = std::env::current_exe()?;
    let mut inherited = Inherited::take()?;
    std::fs::create_dir_all(&arguments.dir)?;
    let listener = inherited.as_mut().and_then(|inherited| inherited.edge.take());
    let open = |config| Edge::open(config, &arguments.dir, listener, Instant::now());
    let edge = arguments.edge.map(open).transpose()?;
    let mut server = Server::open(&arguments.dir, edge, inherited)?;
    while server.serve()? == End::Upgrade {
        let error = server.handover().execute(&program, all);
        eprintln!("berth-launcher: executing {} failed: {error}; this one goes on", program.display());
        server.go_on()?;
    }
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut dir, mut listen, mut user, mut command) = (None, None, None, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--dir" => dir = Some(PathBuf::from(value()?)),
            "--edge-listen" => {
                let text = value()?;
                listen = Some(text.parse::<SocketAddr>().map_err(|e| format!("--edge-listen {text}: {e}"))?);
            }
            "--edge-user" => {
                let text = value()?;
                user = Some(text.parse::<u32>().map_err(|e| format!("--edge-user {text}: {e}"))?);
            }
            "--" => command.extend(arguments.by_ref()),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    let edge = match (listen, user, command.is_empty()) {
        (None, None, true) => None,
        (Some(listen), Some(user), false) => Some(EdgeConfig { listen, user, command }),
        _ => return Err("--edge-listen, --edge-user and the edge's command go together".into()),
    };
    let dir = std::path::absolute(dir.ok_or("--dir is missing")?).map_err(|e| e.to_string())?;
    Ok(Arguments { dir, edge })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Arguments, String> {
        parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_edges_options_must_go_together() {
        assert!(parsed("--dir /d").unwrap().edge.is_none());
        assert!(parsed("--dir /d --edge-listen 127.0.0.1:80").is_err());
        let edge =
            parsed("--dir /d --edge-listen 127.0.0.1:80 --edge-user 9 -- /edge --dir /e").unwrap().edge;
        assert_eq!(edge.unwrap().command, ["/edge", "--dir", "/e"]);
    }
}

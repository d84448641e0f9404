//! The command line, and the execve that upgrades a running launcher in place.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use berth_launcher::edge::{Edge, EdgeConfig};
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
    // Where the program is now: an upgrade puts the new one at the same place.
    let program = std::env::current_exe();
    match run(arguments) {
        Ok(End::Stop) => ExitCode::SUCCESS,
        Ok(End::Upgrade) => {
            let program = program.unwrap_or_else(|_| PathBuf::from(&all[0]));
            let error = std::process::Command::new(&program).args(&all[1..]).exec();
            eprintln!("berth-launcher: execute {}: {error}", program.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("berth-launcher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<End> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "D10: it must run as root"));
    }
    std::fs::create_dir_all(&arguments.dir)?;
    let edge = arguments.edge.map(|config| Edge::open(config, &arguments.dir, Instant::now())).transpose()?;
    Server::open(&arguments.dir, edge)?.serve()
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

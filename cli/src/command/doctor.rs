//! `berth doctor`: what may be wrong between this machine and a running app. It changes nothing; every check
//! that fails says what to do. What a host lacks is found by its agent and only shown here.

use berth_wire::api::{Account, Host, Stack};
use console::style;
use serde::Serialize;

use crate::client::Client;
use crate::credentials::{self, server_key};
use crate::failure::{Exit, Failure};
use crate::git;
use crate::session::Session;

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    Warning,
    Bad,
}

/// One check; this is also its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    check: String,
    verdict: Verdict,
    message: String,
}

impl Check {
    fn new(check: &str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self { check: check.to_owned(), verdict, message: message.into() }
    }
}

/// Runs it.
///
/// # Errors
/// A check went badly.
pub async fn run(session: &Session<'_>) -> Result<(), Failure> {
    let mut checks = vec![
        Check::new("berth", Verdict::Good, env!("CARGO_PKG_VERSION")),
        check_git(git::version()),
        check_file(),
    ];
    match session.server() {
        Ok((url, token)) => {
            let server = server_key(&url);
            let client = Client::new(url, token)?;
            checks.extend(check_server(&client, &server).await);
        }
        Err(failure) => checks.push(Check::new("control plane", Verdict::Bad, failure.message)),
    }
    session.screen.answer(&checks, |screen| {
        for Check { check, verdict, message } in &checks {
            let mark = match verdict {
                Verdict::Good => style("ok  ").green(),
                Verdict::Warning => style("warn").yellow(),
                Verdict::Bad => style("BAD ").red(),
            };
            screen.line(format!("{mark}  {check:<15}{message}"));
        }
    })?;
    match checks.iter().filter(|check| check.verdict == Verdict::Bad).count() {
        0 => Ok(()),
        count => Err(Failure::new(Exit::Failed, format!("{count} of {} checks went badly", checks.len()))),
    }
}

fn check_git(version: Result<String, Failure>) -> Check {
    match version {
        Ok(version) => Check::new("git", Verdict::Good, version),
        Err(failure) => Check::new(
            "git",
            Verdict::Warning,
            format!("{}. `berth deploy` works without git, pushing does not", failure.message),
        ),
    }
}

/// Whether the credentials file is readable by its owner only.
fn check_file() -> Check {
    let path = match credentials::path() {
        Ok(path) => path,
        Err(failure) => return Check::new("credentials", Verdict::Bad, failure.message),
    };
    if let Err(failure) = credentials::Credentials::load(&path) {
        return Check::new("credentials", Verdict::Bad, failure.message);
    }
    #[cfg(unix)]
    if let Ok(file) = std::fs::metadata(&path) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            let message = format!("{} has mode {mode:o}; others can read it: chmod 600 it", path.display());
            return Check::new("credentials", Verdict::Bad, message);
        }
    }
    Check::new("credentials", Verdict::Good, path.display().to_string())
}

async fn check_server(client: &Client, server: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    let account: Account = match client.get("/v1/account").await {
        Ok(account) => account,
        Err(failure) => return vec![Check::new("control plane", Verdict::Bad, failure.message)],
    };
    checks.push(Check::new(
        "control plane",
        Verdict::Good,
        format!("{server}, version {}", account.server_version),
    ));
    checks.push(check_version(&account.server_version));
    checks.push(Check::new(
        "token",
        Verdict::Good,
        format!("{} (team {})", account.token_name, account.team_name),
    ));
    checks.push(if git::has_credential_helper(server) {
        Check::new("git password", Verdict::Good, "git asks berth")
    } else {
        let message = format!("git does not ask berth for it; run `berth login {server}`");
        Check::new("git password", Verdict::Warning, message)
    });
    match client.get::<Vec<Stack>>("/v1/stacks").await {
        Ok(stacks) if stacks.is_empty() => {
            checks.push(Check::new("stack", Verdict::Bad, "none imported, so nothing can be built; see A20"));
        }
        Ok(stacks) => {
            let names: Vec<String> = stacks.into_iter().map(|stack| stack.name).collect();
            checks.push(Check::new("stack", Verdict::Good, names.join(", ")));
        }
        Err(failure) => checks.push(Check::new("stack", Verdict::Bad, failure.message)),
    }
    match client.get::<Vec<Host>>("/v1/hosts").await {
        Ok(hosts) => checks.extend(check_hosts(&hosts)),
        Err(failure) => checks.push(Check::new("hosts", Verdict::Bad, failure.message)),
    }
    checks
}

fn check_version(server: &str) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    if server == own {
        Check::new("versions", Verdict::Good, "berth and the control plane are the same")
    } else {
        let message = format!("berth is {own}, the control plane {server}; use the same of both");
        Check::new("versions", Verdict::Warning, message)
    }
}

fn check_hosts(hosts: &[Host]) -> Vec<Check> {
    if hosts.is_empty() {
        let message = "there is none, so nothing can run; on the control plane: berthd host add --name NAME";
        return vec![Check::new("hosts", Verdict::Bad, message)];
    }
    let mut checks = Vec::new();
    for host in hosts {
        let name = format!("host {}", host.name);
        checks.push(match (host.up, host.seen_at) {
            (true, _) => Check::new(&name, Verdict::Good, format!("up, agent {}", host.facts.agent_version)),
            (false, Some(at)) => {
                Check::new(&name, Verdict::Bad, format!("silent since {at}; look at berth-agent there"))
            }
            (false, None) => {
                Check::new(&name, Verdict::Bad, "was added but never heard of; start berth-agent there")
            }
        });
        checks.extend(host.facts.warnings.iter().map(|text| Check::new(&name, Verdict::Warning, text)));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_host_must_be_bad_and_its_warnings_must_be_shown() {
        let host: Host = serde_json::from_value(serde_json::json!({
            "id": uuid::Uuid::nil(), "name": "h1", "up": false, "seen_at": null, "cpu_millis_reserved": 0,
            "memory_bytes_reserved": 0, "instances": 0,
            "facts": {"agent_version": "", "kernel": "", "cpu_millis": 0, "memory_bytes": 0,
                "memory_available_bytes": 0, "disk_bytes": 0, "disk_available_bytes": 0, "pids": 0,
                "warnings": ["no memory.high on cgroup v1"]},
        }))
        .unwrap();
        let checks = check_hosts(&[host]);
        assert_eq!(checks[0].verdict, Verdict::Bad);
        assert_eq!(checks[1], Check::new("host h1", Verdict::Warning, "no memory.high on cgroup v1"));
        assert_eq!(check_hosts(&[])[0].verdict, Verdict::Bad);
    }

    #[test]
    fn another_version_must_be_a_warning() {
        assert_eq!(check_version(env!("CARGO_PKG_VERSION")).verdict, Verdict::Good);
        assert_eq!(check_version("99.0.0").verdict, Verdict::Warning);
    }
}

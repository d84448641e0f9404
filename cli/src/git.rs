//! The git of this machine: the remote that says which app a folder is, and who answers when git asks for a
//! password. Arguments are passed as a list; no shell is involved on our side.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use berth_wire::name::AppName;
use reqwest::Url;

use crate::failure::Failure;

/// The name of the git remote that `apps create` makes.
pub const REMOTE: &str = "berth";

/// What a remote's URL says: which control plane, which app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The control plane, without a path.
    pub server: Url,
    /// The app.
    pub app: AppName,
}

/// Reads `http://HOST:PORT/git/APP.git`; anything else is some other remote.
pub fn parse_remote(url: &str) -> Option<Remote> {
    let mut server = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let app = server.path().strip_prefix("/git/")?.strip_suffix(".git")?.parse().ok()?;
    server.set_path("/");
    server.set_query(None);
    // Neither can fail: the URL has a host.
    let _ = server.set_username("");
    let _ = server.set_password(None);
    Some(Remote { server, app })
}

/// The remote `berth` of the repository that the current folder is in; none without git, repository or remote.
pub fn remote() -> Option<Remote> {
    parse_remote(&run(["remote", "get-url", REMOTE]).ok()?)
}

/// Whether the current folder is inside a git repository.
pub fn in_repository() -> bool {
    run(["rev-parse", "--git-dir"]).is_ok()
}

/// Points the remote `berth` of this repository at `url`.
///
/// # Errors
/// git's own words.
pub fn set_remote(url: &str) -> Result<(), Failure> {
    let verb = if run(["remote", "get-url", REMOTE]).is_ok() { "set-url" } else { "add" };
    run(["remote", verb, REMOTE, url]).map(|_| ())
}

/// Removes the remote `berth` if it points at `url`.
pub fn remove_remote(url: &str) -> bool {
    run(["remote", "get-url", REMOTE]).is_ok_and(|now| now == url)
        && run(["remote", "remove", REMOTE]).is_ok()
}

/// `git --version`, e.g. `2.47.3`.
///
/// # Errors
/// There is no git.
pub fn version() -> Result<String, Failure> {
    run(["--version"]).map(|text| text.trim_start_matches("git version ").to_owned())
}

/// Makes git ask `berth git-credential` for the password of this control plane, and only of this one. The empty
/// value first takes other helpers off for it: the token is not to be copied into them.
///
/// # Errors
/// There is no git, or its global configuration cannot be written.
pub fn install_credential_helper(server: &str) -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::local("finding berth's own path", e))?;
    let key = helper_key(server);
    run(["config", "--global", "--replace-all", &key, ""])?;
    run(["config", "--global", "--add", &key, &helper_command(&program)]).map(|_| ())
}

/// Takes it off again; that it was not there is no error.
pub fn remove_credential_helper(server: &str) {
    let _ = run(["config", "--global", "--unset-all", &helper_key(server)]);
}

/// Whether git would ask `berth` for this control plane's password.
pub fn has_credential_helper(server: &str) -> bool {
    run(["config", "--global", "--get-all", &helper_key(server)])
        .is_ok_and(|helpers| helpers.contains("git-credential"))
}

fn helper_key(server: &str) -> String {
    format!("credential.{server}.helper")
}

/// What git is told to run. git hands it to a shell (gitcredentials(7)), hence the quotes.
fn helper_command(program: &Path) -> String {
    let path = program.to_string_lossy().replace('\\', "/").replace('\'', r"'\''");
    format!("!'{path}' git-credential")
}

fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(arguments: I) -> Result<String, Failure> {
    let output = Command::new("git")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Failure::local("running git (is it installed?)", e))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(Failure::local("running git", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_must_name_server_and_app() {
        let remote = parse_remote("http://127.0.0.1:8400/git/shop.git").unwrap();
        assert_eq!(remote.app.as_str(), "shop");
        assert_eq!(remote.server.as_str(), "http://127.0.0.1:8400/");
        let remote = parse_remote("https://berth:secret@berth.example/git/shop.git").unwrap();
        assert_eq!(remote.server.as_str(), "https://berth.example/");
        for other in ["git@host:me/shop.git", "https://host/me/shop.git", "https://host/git/Bad_Name.git", ""]
        {
            assert_eq!(parse_remote(other), None, "{other}");
        }
    }

    #[test]
    fn a_path_with_a_quote_must_stay_one_word() {
        assert_eq!(helper_command(Path::new("/o'x y/berth")), r"!'/o'\''x y/berth' git-credential");
    }
}

//! `berth git-credential get|store|erase`: answers git (gitcredentials(7), git-credential(1)). It knows only the
//! control planes signed in to; about any other it says nothing, and git asks on.

use std::collections::BTreeMap;
use std::io::Read as _;

use crate::credentials::{self, Credentials, server_key};
use crate::failure::Failure;
use crate::session::parse_url;

/// git's question is a few short lines.
const QUESTION_BYTES_MAX: u64 = 64 * 1024;

/// Arguments of `git-credential`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What git wants: get, store or erase
    verb: String,
}

/// Runs it. `store` and `erase` do nothing: tokens come from `login` and go with `logout`.
///
/// # Errors
/// Standard input or the credentials cannot be read.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.verb != "get" {
        return Ok(());
    }
    let mut question = String::new();
    std::io::stdin()
        .take(QUESTION_BYTES_MAX)
        .read_to_string(&mut question)
        .map_err(|error| Failure::local("reading git's question", error))?;
    let stored = Credentials::load(&credentials::path()?)?;
    let variable = |name| std::env::var(name).ok();
    if let Some(token) = answer(&question, &stored, variable("BERTH_URL"), variable("BERTH_TOKEN")) {
        println!("username=berth\npassword={token}");
    }
    Ok(())
}

fn answer(
    question: &str,
    stored: &Credentials,
    url: Option<String>,
    token: Option<String>,
) -> Option<String> {
    let asked: BTreeMap<&str, &str> = question.lines().filter_map(|line| line.split_once('=')).collect();
    let wanted = parse_url(&format!("{}://{}", asked.get("protocol")?, asked.get("host")?)).ok()?;
    let wanted = server_key(&wanted);
    if let (Some(url), Some(token)) = (url, token)
        && parse_url(&url).is_ok_and(|url| server_key(&url) == wanted)
    {
        return Some(token);
    }
    stored.servers.get(&wanted).map(|server| server.token.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Server;

    #[test]
    fn only_the_server_of_a_token_must_get_it() {
        let mut stored = Credentials::default();
        stored.servers.insert("http://127.0.0.1:8400".into(), Server { token: "t".into() });
        let ask = |host: &str| {
            let question = format!("protocol=http\nhost={host}\npath=git/x.git\n\n");
            answer(&question, &stored, Some("http://env:1".into()), Some("e".into()))
        };
        assert_eq!(ask("127.0.0.1:8400").as_deref(), Some("t"));
        assert_eq!(ask("env:1").as_deref(), Some("e"));
        assert_eq!(ask("127.0.0.1:8401"), None);
        assert_eq!(answer("", &stored, None, None), None);
    }
}

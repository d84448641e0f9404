//! `berth config`: list, get, set, unset and import config vars. A change is one release.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use berth_wire::api::{Change, ConfigChange};
use berth_wire::name::ConfigKey;
use reqwest::Method;

use crate::dotenv;
use crate::failure::{Exit, Failure};
use crate::session::Session;
use crate::settle;

/// Most of a file that `import` reads: four times what an app may have in all, for the comments.
const IMPORT_BYTES_MAX: u64 = 1024 * 1024;

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List every config var (the default)
    List,
    /// Print one value
    Get {
        /// Its key
        key: ConfigKey,
    },
    /// Set config vars: KEY=VALUE ...
    Set {
        /// KEY=VALUE
        #[arg(required = true, value_name = "KEY=VALUE")]
        vars: Vec<String>,
        /// Come back once the change is accepted
        #[arg(long)]
        no_wait: bool,
    },
    /// Unset config vars
    Unset {
        /// Their keys
        #[arg(required = true)]
        keys: Vec<ConfigKey>,
        /// Come back once the change is accepted
        #[arg(long)]
        no_wait: bool,
    },
    /// Set every config var of a .env file
    Import {
        /// The file; - is standard input
        #[arg(default_value = ".env")]
        file: PathBuf,
        /// Come back once the change is accepted
        #[arg(long)]
        no_wait: bool,
    },
}

/// Runs it.
///
/// # Errors
/// Bad input, or as the API has it.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    match arguments.verb.unwrap_or(Verb::List) {
        Verb::List => {
            let vars = vars(session).await?;
            session.screen.answer(&vars, |screen| {
                for (key, value) in &vars {
                    screen.line(format!("{key}={}", quoted(value)));
                }
            })
        }
        Verb::Get { key } => {
            let mut vars = vars(session).await?;
            let value =
                vars.remove(&key).ok_or_else(|| Failure::new(Exit::NotFound, format!("{key} is not set")))?;
            session.screen.answer(&value, |screen| screen.line(&value))
        }
        Verb::Set { vars, no_wait } => {
            let set = vars.iter().map(|text| assignment(text)).collect::<Result<_, _>>()?;
            change(session, ConfigChange { set, ..ConfigChange::default() }, no_wait).await
        }
        Verb::Unset { keys, no_wait } => {
            change(session, ConfigChange { unset: keys, ..ConfigChange::default() }, no_wait).await
        }
        Verb::Import { file, no_wait } => {
            let set = dotenv::parse(&read(&file)?)
                .map_err(|error| Failure::usage(format!("{}, {error}", file.display())))?;
            if set.is_empty() {
                return Err(Failure::usage(format!("{} sets nothing", file.display())));
            }
            change(session, ConfigChange { set, ..ConfigChange::default() }, no_wait).await
        }
    }
}

async fn vars(session: &Session<'_>) -> Result<BTreeMap<ConfigKey, String>, Failure> {
    session.client()?.get(&format!("/v1/apps/{}/config", session.app()?)).await
}

async fn change(session: &Session<'_>, change: ConfigChange, no_wait: bool) -> Result<(), Failure> {
    let (app, client) = (session.app()?, session.client()?);
    let change: Change = client.call(Method::PATCH, &format!("/v1/apps/{app}/config"), &change).await?;
    settle::finish(session.screen, &client, &app, change, no_wait).await
}

fn assignment(text: &str) -> Result<(ConfigKey, String), Failure> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Failure::usage(format!("{text:?} is not KEY=VALUE; to read one use `berth config get`"))
    })?;
    let key = key.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    Ok((key, value.to_owned()))
}

fn read(file: &PathBuf) -> Result<String, Failure> {
    let failed = |error| Failure::local(format!("reading {}", file.display()), error);
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().take(IMPORT_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(file).map_err(failed)?;
        file.take(IMPORT_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

/// So that `berth config > .env` and `berth config import` are each other's opposite.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=?&~".contains(c);
    if value.chars().all(plain) {
        return value.to_owned();
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_must_be_read_back_the_same() {
        for value in ["", "plain", "two words", "a\"b\\c$d", "line\nline", "#x", "'q'", "ünï"] {
            let text = format!("KEY={}\n", quoted(value));
            let vars = dotenv::parse(&text).unwrap();
            assert_eq!(vars.into_values().next().as_deref(), Some(value), "{text}");
        }
    }

    #[test]
    fn a_value_must_keep_its_equals_signs() {
        let (key, value) = assignment("A=b=c").unwrap();
        assert_eq!((key.as_str(), value.as_str()), ("A", "b=c"));
        assert_eq!(assignment("A").unwrap_err().exit, Exit::Usage);
        assert!(assignment("PORT=1").unwrap_err().message.contains("set by Berth"));
    }
}

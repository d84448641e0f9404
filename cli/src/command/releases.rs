//! `berth releases`: list them, show one.

use berth_wire::api::{Release, ReleaseStatus};
use jiff::Timestamp;

use crate::failure::Failure;
use crate::quantity;
use crate::screen::{left, word};
use crate::session::Session;

/// Arguments of `releases`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the releases, newest first (the default)
    List {
        /// How many
        #[arg(short, long, default_value_t = 15)]
        number: usize,
    },
    /// Show one release
    Info {
        /// Which: v5 or 5
        #[arg(value_parser = parse_version)]
        version: u64,
    },
}

/// `v5` or `5`.
///
/// # Errors
/// A sentence.
pub fn parse_version(text: &str) -> Result<u64, String> {
    text.strip_prefix('v')
        .unwrap_or(text)
        .parse()
        .ok()
        .filter(|&version| version > 0)
        .ok_or_else(|| format!("{text:?} is no release; releases are called v1, v2 and so on"))
}

/// Runs it.
///
/// # Errors
/// As the API has it.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    let (app, client) = (session.app()?, session.client()?);
    match arguments.verb.unwrap_or(Verb::List { number: 15 }) {
        Verb::List { number } => {
            let mut releases: Vec<Release> = client.get(&format!("/v1/apps/{app}/releases")).await?;
            releases.sort_by_key(|release| std::cmp::Reverse(release.version));
            releases.truncate(number);
            let columns = [left("VERSION"), left("STATUS"), left("WHEN"), left("BY"), left("DESCRIPTION")];
            let empty = format!("No releases of {app} yet. Push it: git push berth main");
            session.screen.list(&releases, empty, &columns, row)
        }
        Verb::Info { version } => {
            let release: Release = client.get(&format!("/v1/apps/{app}/releases/{version}")).await?;
            session.screen.answer(&release, |screen| {
                for line in lines(&release) {
                    screen.line(line);
                }
            })
        }
    }
}

fn row(release: &Release, now: Timestamp) -> Vec<String> {
    vec![
        format!("v{}", release.version),
        status(release),
        quantity::ago(release.created_at, now),
        release.by.clone(),
        release.description.clone(),
    ]
}

fn status(release: &Release) -> String {
    match (&release.trouble, release.status) {
        (Some(trouble), ReleaseStatus::Failed) => format!("failed {}", trouble.code),
        (_, status) => word(&status),
    }
}

fn lines(release: &Release) -> Vec<String> {
    let mut lines = vec![
        format!("Release      v{}: {}", release.version, release.description),
        format!("Status       {}", status(release)),
        format!("Made         {} by {}", release.created_at.strftime("%Y-%m-%d %H:%M:%S UTC"), release.by),
    ];
    if let Some(commit) = &release.commit {
        lines.push(format!("Commit       {commit}"));
    }
    if let Some(build) = &release.build {
        lines.push(format!("Build        {build}"));
    }
    lines.push(format!("Image        {}@{}", release.image.repository, release.image.digest));
    for formation in &release.formation {
        let command = formation.command.as_deref().unwrap_or("-");
        lines.push(format!("{:<12} {} x {command}", formation.process.as_str(), formation.count));
    }
    if let Some(trouble) = &release.trouble {
        lines.push(format!("Trouble      {} {}", trouble.code, trouble.message));
        lines.extend(trouble.log_tail.iter().map(|line| format!("  {line}")));
        lines.push(format!("What to do   berth explain {}", trouble.code));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_must_be_read_with_and_without_v() {
        assert_eq!((parse_version("v5"), parse_version("5")), (Ok(5), Ok(5)));
        for text in ["", "v", "v0", "vv1", "-1", "latest"] {
            assert!(parse_version(text).is_err(), "{text}");
        }
    }
}

//! `berth builds`: list them, show one, read its log.

use berth_wire::api::Build;
use berth_wire::name::AppName;
use jiff::Timestamp;

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::quantity;
use crate::screen::{left, word};
use crate::session::Session;

/// Arguments of `builds`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the builds, newest first (the default)
    List,
    /// Show one build
    Info {
        /// Its id, or the end of it as `list` shows it; the newest if left out
        id: Option<String>,
    },
    /// Print a build's log; follow it if it still runs
    Log {
        /// Its id, or the end of it as `list` shows it; the newest if left out
        id: Option<String>,
    },
}

/// Runs it.
///
/// # Errors
/// As the API has it.
pub async fn run(session: &Session<'_>, arguments: Arguments) -> Result<(), Failure> {
    let (app, client) = (session.app()?, session.client()?);
    match arguments.verb.unwrap_or(Verb::List) {
        Verb::List => list(session, &builds(&client, &app).await?),
        Verb::Info { id } => {
            let build = find(builds(&client, &app).await?, id.as_deref(), &app)?;
            session.screen.answer(&build, |screen| {
                for line in lines(&build) {
                    screen.line(line);
                }
            })
        }
        Verb::Log { id } => {
            let build = find(builds(&client, &app).await?, id.as_deref(), &app)?;
            super::deploy::follow_log(session.screen, &client, &app, build.id).await?;
            if session.screen.is_json() { session.screen.answer(&build, |_| ()) } else { Ok(()) }
        }
    }
}

async fn builds(client: &Client, app: &AppName) -> Result<Vec<Build>, Failure> {
    let mut builds: Vec<Build> = client.get(&format!("/v1/apps/{app}/builds")).await?;
    builds.sort_by_key(|build| std::cmp::Reverse(build.created_at));
    Ok(builds)
}

fn list(session: &Session<'_>, builds: &[Build]) -> Result<(), Failure> {
    let columns = [left("ID"), left("STATUS"), left("WHEN"), left("TOOK"), left("COMMIT"), left("RELEASE")];
    session.screen.list(builds, "No builds yet. Push: git push berth main", &columns, row)
}

fn row(build: &Build, now: Timestamp) -> Vec<String> {
    let commit = build.commit.as_deref().unwrap_or("-");
    vec![
        short(build),
        status(build),
        quantity::ago(build.created_at, now),
        quantity::since(build.created_at, build.ended_at.unwrap_or(now)),
        commit.get(..7).unwrap_or(commit).to_owned(),
        build.release.map_or_else(|| "-".into(), |version| format!("v{version}")),
    ]
}

/// The last digits of the id: version 7 ids made at about the same time begin alike.
fn short(build: &Build) -> String {
    let text = build.id.to_string();
    text.rsplit('-').next().unwrap_or(&text).to_owned()
}

fn status(build: &Build) -> String {
    match &build.trouble {
        Some(trouble) => format!("{} {}", word(&build.status), trouble.code),
        None => word(&build.status),
    }
}

fn lines(build: &Build) -> Vec<String> {
    let stamp = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let mut lines = vec![
        format!("Build       {}", build.id),
        format!("Status      {}", status(build)),
        format!("Asked for   {}", stamp(build.created_at)),
    ];
    lines.extend(build.ended_at.map(|at| format!("Ended       {}", stamp(at))));
    lines.extend(build.commit.as_ref().map(|commit| format!("Commit      {commit}")));
    lines.extend(build.release.map(|version| format!("Release     v{version}")));
    if let Some(trouble) = &build.trouble {
        lines.push(format!("Trouble     {} {}", trouble.code, trouble.message));
        lines.extend(trouble.log_tail.iter().map(|line| format!("  {line}")));
        lines.push(format!("What to do  berth explain {}", trouble.code));
    }
    lines
}

/// The newest, or the only one whose id starts or ends with `wanted`.
fn find(builds: Vec<Build>, wanted: Option<&str>, app: &AppName) -> Result<Build, Failure> {
    let Some(wanted) = wanted else {
        let none = || Failure::new(Exit::NotFound, format!("{app} has no builds yet"));
        return builds.into_iter().next().ok_or_else(none);
    };
    let mut matching = builds.into_iter().filter(|build| {
        let id = build.id.to_string();
        id.starts_with(wanted) || id.ends_with(wanted)
    });
    match (matching.next(), matching.next()) {
        (Some(build), None) => Ok(build),
        (Some(_), Some(_)) => Err(Failure::usage(format!("More than one build of {app} is called {wanted}"))),
        (None, _) => Err(Failure::new(
            Exit::NotFound,
            format!("{app} has no build {wanted}; `berth builds` lists them"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(id: &str) -> Build {
        serde_json::from_value(serde_json::json!({
            "id": id, "created_at": "2026-01-01T00:00:00Z", "ended_at": null, "commit": null,
            "status": "running", "trouble": null, "release": null,
        }))
        .unwrap()
    }

    #[test]
    fn a_build_must_be_found_by_either_end_of_its_id_and_only_if_it_is_the_only_one() {
        let app: AppName = "shop".parse().unwrap();
        let all = || {
            vec![build("01980000-0000-7000-8000-00000000000a"), build("01980000-0000-7000-8000-00000000000b")]
        };
        assert_eq!(find(all(), Some("00b"), &app).unwrap().id, all()[1].id);
        assert_eq!(find(all(), None, &app).unwrap().id, all()[0].id);
        assert_eq!(find(all(), Some("0198"), &app).unwrap_err().exit, Exit::Usage);
        assert_eq!(find(all(), Some("zz"), &app).unwrap_err().exit, Exit::NotFound);
        assert_eq!(find(vec![], None, &app).unwrap_err().exit, Exit::NotFound);
    }
}

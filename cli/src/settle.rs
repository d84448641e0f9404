//! Waits until a release serves or has failed, and shows meanwhile what it is at.
//!
//! ```text
//! change accepted ──> GET releases/N?wait=2 ──> current ──> "vN is live."
//!                         ^          │
//!                         └─ rolling ┴──> failed ──> code, reason, last log lines; exit status 6
//! ```

use std::time::{Duration, Instant};

use berth_wire::api::{Change, Formation, Instance, Release, ReleaseStatus};
use berth_wire::name::AppName;
use berth_wire::terminal::{Colours, harmless};
use indicatif::ProgressBar;

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::screen::Screen;

/// One request waits this long, so that the progress line is never older.
const WAIT_SECONDS: u64 = 2;
/// A release command may run for long; past this the person is better off looking.
const SETTLE_MAX: Duration = Duration::from_secs(30 * 60);
/// A control plane that restarts is away for a moment; longer is a failure.
const UNREACHABLE_MAX: Duration = Duration::from_secs(30);
/// Pause before asking a control plane again that did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// After an accepted change: says what was done, waits (unless told not to) and says how it went.
///
/// # Errors
/// The release failed, or it could not be learned whether it did.
pub async fn finish(
    screen: &Screen,
    client: &Client,
    app: &AppName,
    change: Change,
    no_wait: bool,
) -> Result<(), Failure> {
    screen.line(&change.message);
    let release = match change.release {
        Some(version) if !no_wait => Some(settle(screen, client, app, version).await?),
        _ => None,
    };
    match release {
        Some(release) => screen.answer(&release, |screen| screen.line(live(&release))),
        None => screen.answer(&change, |_| ()),
    }
}

/// Waits for one release.
///
/// # Errors
/// As [`finish`].
pub async fn settle(
    screen: &Screen,
    client: &Client,
    app: &AppName,
    version: u64,
) -> Result<Release, Failure> {
    let spinner = screen.spinner(format!("v{version}: rolling"));
    let path = format!("/v1/apps/{app}/releases/{version}?wait={WAIT_SECONDS}");
    let begun = Instant::now();
    let mut heard = Instant::now();
    while begun.elapsed() < SETTLE_MAX {
        let release: Release = match client.get(&path).await {
            Ok(release) => release,
            Err(failure) if failure.exit == Exit::Unreachable && heard.elapsed() < UNREACHABLE_MAX => {
                spinner.set_message(format!("v{version}: the control plane does not answer; trying again"));
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        heard = Instant::now();
        match release.status {
            ReleaseStatus::Failed => {
                spinner.finish_and_clear();
                return Err(Failure::release(&format!("v{version} did not come up"), release.trouble));
            }
            status if status.is_settled() => return Ok(release),
            _ => show(&spinner, client, app, &release).await,
        }
    }
    Err(Failure::new(
        Exit::Failed,
        format!(
            "v{version} is still on its way after {} minutes; look with `berth releases info v{version}`",
            SETTLE_MAX.as_secs() / 60
        ),
    ))
}

/// How a settled release is told.
pub fn live(release: &Release) -> String {
    let version = release.version;
    match release.status {
        ReleaseStatus::Superseded => format!("v{version} was live; a later release has taken its place."),
        _ => match running(release) {
            // What has no web instance is served nowhere, and "live" would make people look for where.
            counts if counts.is_empty() || release.formation.iter().any(is_served) => {
                format!("v{version} is live.")
            }
            counts => format!("v{version} runs: {counts}."),
        },
    }
}

fn is_served(formation: &Formation) -> bool {
    formation.process.is_web() && formation.count > 0
}

/// `worker=2, clock=1`
fn running(release: &Release) -> String {
    let there =
        release.formation.iter().filter(|formation| formation.count > 0 && formation.command.is_some());
    there.map(|formation| format!("{}={}", formation.process, formation.count)).collect::<Vec<_>>().join(", ")
}

/// What the release is at; only asked for where somebody sees it.
async fn show(spinner: &ProgressBar, client: &Client, app: &AppName, release: &Release) {
    if spinner.is_hidden() {
        return;
    }
    let instances: Vec<Instance> = client.get(&format!("/v1/apps/{app}/instances")).await.unwrap_or_default();
    spinner.set_message(harmless(&progress(release, &instances), Colours::Drop).into_owned());
}

fn progress(release: &Release, instances: &[Instance]) -> String {
    let version = release.version;
    if release.status == ReleaseStatus::Releasing {
        return format!("v{version}: the release command runs");
    }
    let mut parts: Vec<String> = instances
        .iter()
        .filter(|instance| instance.release == version)
        .map(|instance| format!("{} {}", instance.name, state_name(instance)))
        .collect();
    if let Some(trouble) = &release.trouble {
        parts.push(trouble.message.clone());
    }
    if parts.is_empty() {
        format!("v{version}: rolling")
    } else {
        format!("v{version}: {}", parts.join(", "))
    }
}

/// An instance's state in one or two words.
pub fn state_name(instance: &Instance) -> String {
    match instance.state {
        Some(state) => crate::screen::word(&state),
        None => "waiting".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(status: &str) -> Release {
        serde_json::from_value(serde_json::json!({
            "version": 3, "created_at": "2026-01-01T00:00:00Z", "description": "Scale web to 2", "by": "me",
            "status": status, "trouble": null, "commit": null, "build": null, "formation": [], "health": {},
            "image": {"repository": "apps/x", "digest": format!("sha256:{}", "0".repeat(64))},
        }))
        .unwrap()
    }

    #[test]
    fn progress_must_say_what_a_release_is_at() {
        assert_eq!(progress(&release("releasing"), &[]), "v3: the release command runs");
        assert_eq!(progress(&release("rolling"), &[]), "v3: rolling");
    }

    #[test]
    fn a_superseded_release_must_not_be_called_live() {
        assert_eq!(live(&release("current")), "v3 is live.");
        assert!(live(&release("superseded")).contains("was live"));
    }

    #[test]
    fn what_is_served_nowhere_must_not_be_called_live() {
        let mut release = release("current");
        let mut add = |process: &str, count| {
            release.formation.push(Formation {
                process: process.parse().unwrap(),
                command: Some("run".into()),
                count,
                quota: berth_wire::quota::Quota::default(),
            });
            live(&release)
        };
        assert_eq!(add("worker", 2), "v3 runs: worker=2.");
        assert_eq!(add("web", 1), "v3 is live.");
    }
}

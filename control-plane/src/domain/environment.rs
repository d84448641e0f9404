//! What an instance runs: its argument vector and its environment.

use std::collections::BTreeMap;

use berth_wire::digest::Digest;
use berth_wire::name::{AppName, ProcessType};
use berth_wire::spec::ProcessSpec;

use super::release::Content;

/// The port `web` is told to bind. Each instance has its own network, so one number fits all.
pub const PORT: u16 = 8080;

/// Seconds between SIGTERM and SIGKILL where `berth.toml` says nothing: Heroku's.
pub const STOP_GRACE_SECONDS: u32 = 30;

/// Most seconds that `berth.toml` may ask for.
pub const STOP_GRACE_SECONDS_MAX: u32 = 600;

/// Which process of which release of which app.
#[derive(Debug, Clone, Copy)]
pub struct Which<'a> {
    /// The app.
    pub app: &'a AppName,
    /// The release.
    pub version: u64,
    /// The process type.
    pub process: &'a ProcessType,
    /// The `1` of `web.1`.
    pub index: u32,
}

/// The process that an instance runs; none if the image does not have that process type.
///
/// The command line is run by a shell *inside* the container, as Heroku does, so that `$PORT` in a Procfile works.
/// Precedence of the environment, weakest first: pack, config vars, Berth.
pub fn process_spec(content: &Content, which: Which<'_>, run_seconds_max: u32) -> Option<ProcessSpec> {
    let command = content.manifest.processes.get(which.process)?;
    Some(spec_of(content, which, super::command_line::argv(command), run_seconds_max))
}

/// A process of this release with another command.
pub fn spec_of(content: &Content, which: Which<'_>, argv: Vec<String>, run_seconds_max: u32) -> ProcessSpec {
    let mut env = content.manifest.env.clone();
    env.extend(content.config.iter().map(|(key, value)| (key.as_str().to_owned(), value.clone())));
    let mut set = |key: &str, value: String| env.insert(key.to_owned(), value);
    set("BERTH_APP", which.app.to_string());
    set("BERTH_PROCESS", which.process.to_string());
    set("BERTH_INSTANCE", format!("{}.{}", which.process, which.index));
    set("BERTH_RELEASE", format!("v{}", which.version));
    if let Some(commit) = &content.commit {
        set("BERTH_COMMIT", commit.clone());
    }
    let port = which.process.is_web().then_some(PORT);
    if let Some(port) = port {
        set("PORT", port.to_string());
    }
    ProcessSpec {
        image: content.image.clone(),
        argv,
        env,
        port,
        health: content.manifest.health.clone(),
        stop_grace_seconds: content
            .manifest
            .stop_grace_seconds
            .unwrap_or(STOP_GRACE_SECONDS)
            .min(STOP_GRACE_SECONDS_MAX),
        run_seconds_max,
        attached: None,
    }
}

/// What makes two instances of a process type the same, so that one serves on in place of the other: everything that
/// the process could notice, but for the release's number. Scaling therefore restarts nobody; a restart does, as its
/// nonce is part of it. The quota is not: it changes under the running process (`plan/exchange.rs`).
pub fn fingerprint(content: &Content, process: &ProcessType) -> String {
    let manifest = &content.manifest;
    let config: BTreeMap<&str, &String> = content.config.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let parts = (
        &content.image,
        (&content.commit, content.restart_nonce, process),
        manifest.processes.get(process),
        (&manifest.env, config),
        (&manifest.health, manifest.stop_grace_seconds),
    );
    // Encoding these types cannot fail: all map keys are strings.
    Digest::of(&serde_json::to_vec(&parts).unwrap_or_default()).as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use berth_wire::image::{AppManifest, ImageRef};

    use super::*;
    use crate::domain::formation::Formation;

    fn content() -> Content {
        let env = [("PATH", "/app/bin"), ("A", "pack"), ("PORT", "1")];
        let manifest = AppManifest {
            processes: [("web".parse().unwrap(), "serve --port $PORT".to_owned())].into(),
            env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..AppManifest::default()
        };
        Content {
            image: ImageRef { repository: "apps/x".into(), digest: Digest::of(b"image") },
            manifest,
            commit: None,
            build: None,
            config: [("A".parse().unwrap(), "config".to_owned())].into(),
            formation: Formation::new(),
            restart_nonce: 0,
        }
    }

    #[test]
    fn config_vars_must_win_over_the_pack_and_berth_over_both() {
        let (app, process) = ("shop".parse().unwrap(), ProcessType::web());
        let which = Which { app: &app, version: 5, process: &process, index: 2 };
        let spec = process_spec(&content(), which, 0).unwrap();
        assert_eq!((spec.env["A"].as_str(), spec.env["PATH"].as_str()), ("config", "/app/bin"));
        assert_eq!((spec.env["PORT"].as_str(), spec.port), ("8080", Some(8080)));
        assert_eq!(
            (spec.env["BERTH_INSTANCE"].as_str(), spec.env["BERTH_RELEASE"].as_str()),
            ("web.2", "v5")
        );
        let other = Which { process: &ProcessType::release(), ..which };
        assert_eq!(process_spec(&content(), other, 0), None);
    }

    #[test]
    fn a_fingerprint_must_change_with_all_that_the_process_could_notice() {
        let web = ProcessType::web();
        let print = |content: &Content| fingerprint(content, &web);
        let base = print(&content());
        let scaled = Content {
            formation: crate::domain::formation::adopt(&Formation::new(), &content().manifest),
            ..content()
        };
        assert_eq!(print(&scaled), base);
        for other in [
            Content { restart_nonce: 7, ..content() },
            Content { config: [("A".parse().unwrap(), "other".to_owned())].into(), ..content() },
            Content { commit: Some("abc".into()), ..content() },
            Content {
                image: ImageRef { repository: "apps/x".into(), digest: Digest::of(b"other") },
                ..content()
            },
        ] {
            assert_ne!(print(&other), base, "{other:?}");
        }
    }
}

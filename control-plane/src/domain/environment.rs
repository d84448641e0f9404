//! What an instance runs: its argument vector and its environment.

use std::collections::BTreeMap;

use berth_wire::digest::Digest;
use berth_wire::name::{AppName, ProcessType};
use berth_wire::quota::Quota;
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
    Some(ProcessSpec {
        image: content.image.clone(),
        argv: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
        env,
        port,
        health: content.manifest.health.clone(),
        stop_grace_seconds: content
            .manifest
            .stop_grace_seconds
            .unwrap_or(STOP_GRACE_SECONDS)
            .min(STOP_GRACE_SECONDS_MAX),
        run_seconds_max,
    })
}

/// What makes two instances of a process type the same, so that one serves on in place of the other: everything that
/// the process could notice, but for the release's number. Scaling therefore restarts nobody; a restart does, as its
/// nonce is part of it.
pub fn fingerprint(content: &Content, process: &ProcessType, quota: &Quota) -> String {
    let manifest = &content.manifest;
    let config: BTreeMap<&str, &String> = content.config.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let parts = (
        &content.image,
        (&content.commit, content.restart_nonce, process),
        manifest.processes.get(process),
        (&manifest.env, config),
        (&manifest.health, manifest.stop_grace_seconds),
        quota,
    );
    // Encoding these types cannot fail: all map keys are strings.
    Digest::of(&serde_json::to_vec(&parts).unwrap_or_default()).as_str().to_owned()
}

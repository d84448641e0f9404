//! What a build says about the app: pack, Procfile, `berth.toml` and `app.json` folded into the manifest that the image
//! carries. Pure.

use std::collections::BTreeMap;

use berth_wire::code::Code;
use berth_wire::image::AppManifest;
use berth_wire::name::ProcessType;
use berth_wire::report::Trouble;
use oci_spec::image::{
    Arch, ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder, Os, RootFsBuilder,
};
use serde::Deserialize;

use super::plan::one_line;
use super::settings::{AppJson, Settings};
use super::trouble;

/// The label of an image's configuration that holds its manifest.
pub const LABEL: &str = "dev.berth.app";
/// The user that apps run as: `app` of the stack.
pub const APP_USER: (u32, u32) = (1000, 1000);
/// Where an app's source is, in builds and when it runs.
pub const APP_DIR: &str = "/app";
/// What an app's PATH is if its pack says nothing.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a pack's `release` prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Default process types; the Procfile overrides them.
    pub processes: BTreeMap<ProcessType, String>,
    /// Environment the pack wants.
    pub env: BTreeMap<String, String>,
}

impl Release {
    /// Reads what `release` printed.
    ///
    /// # Errors
    /// B20 if it is not of that form.
    pub fn parse(text: &[u8]) -> Result<Self, Trouble> {
        serde_json::from_slice(text).map_err(|error| {
            trouble(Code::B20, format!("The pack's release program printed what cannot be read: {error}"))
        })
    }
}

/// Everything that is known about an app at the end of its build.
#[derive(Debug)]
pub struct Findings<'a> {
    /// The pack's folder name.
    pub pack: &'a str,
    /// Notes of the plan.
    pub notes: Vec<String>,
    /// What `release` printed.
    pub release: Release,
    /// The Procfile, if there is one.
    pub procfile: Option<BTreeMap<ProcessType, String>>,
    /// `berth.toml`.
    pub settings: Settings,
    /// `app.json`.
    pub app_json: AppJson,
    /// The commit, for the app to know.
    pub commit: Option<&'a str>,
}

/// Folds the findings.
///
/// # Errors
/// B12 if nothing says what to run.
pub fn manifest(findings: Findings<'_>) -> Result<AppManifest, Trouble> {
    let Findings { pack, mut notes, release, procfile, settings, app_json, commit } = findings;
    let without_procfile = procfile.is_none();
    let mut processes = release.processes;
    // Whole, not merged: who wrote a Procfile without `web` means it.
    if let Some(procfile) = procfile {
        processes = procfile;
    }
    if processes.is_empty() {
        let why = if without_procfile { "There is no Procfile" } else { "The Procfile is empty" };
        let advice = "add a Procfile with a line such as web: COMMAND that listens on $PORT";
        return Err(trouble(Code::B12, format!("{why}, and nothing else says what to run; {advice}")));
    }
    if !processes.keys().any(ProcessType::is_web) {
        notes.push("The Procfile has no web: the app gets no HTTP traffic".to_owned());
    } else if without_procfile {
        let web = processes.get(&ProcessType::web()).map(String::as_str).unwrap_or_default();
        notes.push(format!("No Procfile: web runs {}", one_line(web)));
    }
    notes.extend(app_json.notes);
    let mut env = app_json.env;
    env.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
    env.extend(release.env);
    if let Some(commit) = commit {
        env.insert("BERTH_COMMIT".to_owned(), commit.to_owned());
        env.insert("SOURCE_VERSION".to_owned(), commit.to_owned());
    }
    Ok(AppManifest {
        pack: pack.to_owned(),
        processes,
        env,
        health: settings.health,
        stop_grace_seconds: settings.stop_grace_seconds,
        notes,
    })
}

/// The image's configuration (OCI image spec 1.1, config.md); whoever pushes it fills in the layers.
///
/// # Errors
/// B23 if it cannot be made of these values.
pub fn image_configuration(manifest: &AppManifest) -> Result<ImageConfiguration, Trouble> {
    let unusable = |error: &dyn std::fmt::Display| {
        trouble(Code::B23, format!("The image's configuration could not be made: {error}"))
    };
    let label = serde_json::to_string(manifest).map_err(|error| unusable(&error))?;
    let config = ConfigBuilder::default()
        .user(format!("{}:{}", APP_USER.0, APP_USER.1))
        .working_dir(APP_DIR)
        .env(manifest.env.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
        .labels([(LABEL.to_owned(), label)])
        .build()
        .map_err(|error| unusable(&error))?;
    let layers = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(Vec::new())
        .build()
        .map_err(|error| unusable(&error))?;
    ImageConfigurationBuilder::default()
        .architecture(if cfg!(target_arch = "aarch64") { Arch::ARM64 } else { Arch::Amd64 })
        .os(Os::Linux)
        .config(config)
        .rootfs(layers)
        .build()
        .map_err(|error| unusable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(release: &str, procfile: Option<&str>) -> Findings<'static> {
        Findings {
            pack: "python",
            notes: vec![],
            release: Release::parse(release.as_bytes()).unwrap(),
            procfile: procfile.map(|text| super::super::procfile::parse(text.as_bytes()).unwrap()),
            settings: Settings::default(),
            app_json: AppJson { env: BTreeMap::from([("A".into(), "1".into())]), notes: vec![] },
            commit: Some("c0ffee"),
        }
    }

    #[test]
    fn the_procfile_must_override_the_pack() {
        let release =
            r#"{"processes": {"web": "npm start"}, "env": {"PATH": "/x", "NODE_ENV": "production"}}"#;
        let manifest = manifest(findings(release, Some("worker: w"))).unwrap();
        assert_eq!(manifest.processes.len(), 1);
        assert!(manifest.notes[0].contains("no web"));
        assert_eq!(manifest.env["PATH"], "/x");
        assert_eq!(manifest.env["A"], "1");
        assert_eq!(manifest.env["BERTH_COMMIT"], "c0ffee");
    }

    #[test]
    fn a_packs_default_must_be_used_and_told_without_a_procfile() {
        let manifest = manifest(findings(r#"{"processes": {"web": "npm start"}, "env": {}}"#, None)).unwrap();
        assert_eq!(manifest.processes[&ProcessType::web()], "npm start");
        assert!(manifest.notes[0].contains("npm start"));
    }

    #[test]
    fn nothing_to_run_must_be_refused() {
        for procfile in [None, Some("# nothing")] {
            let refused = manifest(findings(r#"{"processes": {}, "env": {}}"#, procfile)).unwrap_err();
            assert_eq!(refused.code, Code::B12);
        }
    }

    #[test]
    fn the_image_must_carry_the_manifest_and_run_as_the_apps_user() {
        let manifest = manifest(findings(r#"{"processes": {"web": "x"}, "env": {}}"#, None)).unwrap();
        let image = image_configuration(&manifest).unwrap();
        let config = image.config().as_ref().unwrap();
        assert_eq!(config.user().as_deref(), Some("1000:1000"));
        let label = &config.labels().as_ref().unwrap()[LABEL];
        assert_eq!(serde_json::from_str::<AppManifest>(label).unwrap(), manifest);
        assert!(config.env().as_ref().unwrap().contains(&"BERTH_COMMIT=c0ffee".to_owned()));
    }
}

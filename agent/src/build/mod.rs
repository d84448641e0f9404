//! Builds: from a source tree to an image in the registry. The source is fetched and looked at here (headers of a tar, no
//! file is unpacked), packs run in containers (`pipeline`, `sandbox`), and what they find is folded into the image's
//! manifest. When a build runs is `reconcile`'s business.
//!
//! ```text
//! fetch source ─> Procfile, berth.toml, app.json ─> stack ─> unpack ─> detect ─> steps ─> release ─> push
//!     B11 B22                 B12 B19                          B20       B10     B13-B20    B12       B23
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::name::ProcessType;
use berth_wire::report::{Built, Trouble};
use berth_wire::spec::{BuildSpec, InstanceSpec};
use secrecy::{ExposeSecret, SecretString};

use crate::config::BuildConfig;
use crate::container::Host;
use crate::image::Registry;

mod log;
pub mod manifest;
mod pipeline;
#[cfg(test)]
mod pipeline_tests;
pub mod plan;
pub mod procfile;
mod sandbox;
pub mod settings;
mod source;
mod stage;
mod verdict;

use log::BuildLog;
use manifest::Findings;
use pipeline::Pipeline;
use plan::Private;
use sandbox::Containers;
use source::{Source, io_trouble};
use stage::Stage;

/// Where packs are if the configuration says nothing.
const PACKS_DIR_DEFAULT: &str = "/usr/share/berth/packs";

fn trouble(code: Code, message: String) -> Trouble {
    Trouble { code, message, log_tail: Vec::new() }
}

/// Runs builds on this host.
#[derive(Debug)]
pub struct Builder {
    host: Arc<Host>,
    registry: Registry,
    config: BuildConfig,
    client: reqwest::Client,
    dir: PathBuf,
}

/// What the source's own files say, before any container runs.
struct Said {
    procfile: Option<BTreeMap<ProcessType, String>>,
    settings: settings::Settings,
    app_json: settings::AppJson,
}

impl Builder {
    /// Sets builds up below `data_dir`, and removes what builds left there that a crash ended.
    ///
    /// # Errors
    /// A directory that cannot be made or emptied.
    pub fn new(
        host: Arc<Host>,
        control_plane: &str,
        token: SecretString,
        config: BuildConfig,
        data_dir: &Path,
    ) -> std::io::Result<Self> {
        let dir = data_dir.join("builds");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let registry = Registry { base_url: control_plane.trim_end_matches('/').to_owned(), token };
        Ok(Self { host, registry, config, client: reqwest::Client::new(), dir })
    }

    /// Runs a build to its end; dropping the future ends it, and leaves a container that is `instance`'s to be destroyed.
    ///
    /// # Errors
    /// Why there is no image: a code, a sentence, the log's last lines.
    pub async fn run(&self, instance: &InstanceSpec, build: &BuildSpec) -> Result<Built, Trouble> {
        let log = BuildLog::new();
        let closing = CloseOnDrop(log.clone());
        let copied = tokio::spawn(log::copy_to(log.clone(), self.log_request(build)));
        let limit = Duration::from_secs(u64::from(build.run_seconds_max));
        let mut outcome = match tokio::time::timeout(limit, self.build(instance, build, &log)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                if let Err(error) = self.host.destroy(instance.id, true).await {
                    tracing::warn!(instance = %instance.id, %error, "a build that took too long could not be removed whole");
                }
                let message = format!("The build took longer than it may: {} seconds", build.run_seconds_max);
                Err(trouble(Code::B17, message))
            }
        };
        if let Err(trouble) = &mut outcome {
            if trouble.log_tail.is_empty() {
                trouble.log_tail = log.tail();
            }
            // A pack has mostly said it itself.
            if !verdict::is_stated(trouble, &log.tail()) {
                log.warning(&format!("{} {}", trouble.code, trouble.message));
            }
        }
        drop(closing);
        // Whoever reads the log should have all of it when the outcome comes; it ends by itself within a bounded time.
        let _ = copied.await;
        outcome
    }

    fn log_request(&self, build: &BuildSpec) -> impl Fn(usize) -> reqwest::RequestBuilder + use<> {
        let url = format!("{}/agent/v1/builds/{}/log", self.registry.base_url, build.build);
        let (client, token) = (self.client.clone(), self.registry.token.clone());
        move |offset| client.post(&url).query(&[("offset", offset)]).bearer_auth(token.expose_secret())
    }

    async fn build(
        &self,
        instance: &InstanceSpec,
        build: &BuildSpec,
        log: &BuildLog,
    ) -> Result<Built, Trouble> {
        let stage = self.stage(build).await?;
        let url = format!("{}/agent/v1/sources/{}", self.registry.base_url, build.source);
        let request = self.client.get(url).bearer_auth(self.registry.token.expose_secret());
        let source = Source::fetch(request, &build.source, stage.source_path()).await?;
        let said = read_source(&source, &build.env).await?;
        let stack = self.host.images.ensure(&build.stack, &self.registry).await.map_err(|error| {
            trouble(Code::D14, format!("The stack image could not be fetched: {error}; push again"))
        })?;
        let sandbox = Containers {
            host: self.host.clone(),
            id: instance.id,
            hostname: format!("{}-build", instance.app_name),
            quota: instance.quota,
        };
        let pipeline = Pipeline {
            sandbox: &sandbox,
            log,
            source: &source,
            stage: &stage,
            packs: self.packs_dir().to_owned(),
            stack: (build.stack.digest.clone(), stack.layers.clone()),
            env: stage::environment(&self.config.env, self.config.ca_bundle.is_some()),
            config: build.env.clone(),
            private: private(instance, build),
            disk_bytes_max: instance.quota.disk_bytes.max,
            memory_bytes_max: instance.quota.memory_bytes.max,
        };
        let outcome = pipeline.run(said.settings.pack.as_deref()).await?;
        let app = manifest::manifest(Findings {
            pack: &outcome.pack,
            notes: outcome.notes,
            release: outcome.release,
            procfile: said.procfile,
            settings: said.settings,
            app_json: said.app_json,
            commit: build.commit.as_deref(),
        })?;
        log.heading("Discovering process types");
        for (process, command) in &app.processes {
            log.detail(&format!("{process}: {}", plan::one_line(command)));
        }
        for note in &app.notes {
            log.warning(note);
        }
        log.heading("Storing the image");
        let layers: Vec<_> = stack.parts.iter().cloned().chain(outcome.layers).collect();
        let config = manifest::image_configuration(&app)?;
        let pushed = self.host.images.push(&self.registry, &build.repository, &layers, config).await;
        let image = pushed.map_err(|error| {
            tracing::error!(%error, "could not store the image of a build");
            trouble(
                Code::B23,
                format!("The image could not be stored: {}; push again", error.for_outsiders()),
            )
        })?;
        log.detail(&format!("Done: {}", image.digest));
        Ok(Built { image, app })
    }

    fn packs_dir(&self) -> &Path {
        self.config.packs_dir.as_deref().unwrap_or(Path::new(PACKS_DIR_DEFAULT))
    }

    async fn stage(&self, build: &BuildSpec) -> Result<Stage, Trouble> {
        let (dir, packs) = (self.dir.join(build.build.to_string()), self.packs_dir().to_owned());
        let bundle = self.config.ca_bundle.clone();
        let made = tokio::task::spawn_blocking(move || {
            // An earlier try of the same build, whose future was dropped a moment ago.
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            Stage::new(dir, &packs, bundle.as_deref())
        });
        let stage = made.await.map_err(std::io::Error::other).flatten();
        stage.map_err(|error| {
            io_trouble("The packs or the CA bundle could not be laid out on the host", &error)
        })
    }
}

/// Closes the log however the build ends, so that the task that copies it ends, too.
struct CloseOnDrop(BuildLog);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn read_source(source: &Source, config: &BTreeMap<String, String>) -> Result<Said, Trouble> {
    let ours = ["Procfile", "berth.toml", "app.json", ".gitmodules"];
    let foreign = settings::FOREIGN_FILES.map(|(name, _)| name);
    let files = source.read(&[&ours[..], &foreign].concat()).await?;
    let procfile = files.get("Procfile").map(|text| procfile::parse(text)).transpose();
    let procfile = procfile.map_err(|error| trouble(Code::B12, error.to_string()))?;
    let settings = files.get("berth.toml").map(|text| settings::parse(text)).transpose();
    let settings = settings.map_err(|error| trouble(Code::B19, error.to_string()))?.unwrap_or_default();
    let mut app_json =
        files.get("app.json").map(|text| settings::parse_app_json(text, config)).unwrap_or_default();
    app_json.notes.extend(settings::notes_of_foreign_files(|name| files.contains_key(name)));
    if files.contains_key(".gitmodules") {
        app_json
            .notes
            .push("The source has git submodules; they are not part of a push and were left out".to_owned());
    }
    Ok(Said { procfile, settings, app_json })
}

fn private(instance: &InstanceSpec, build: &BuildSpec) -> Private {
    // An encoding of this type cannot fail: all map keys are strings.
    let config = serde_json::to_vec(&build.env).unwrap_or_default();
    Private {
        app: instance.app.to_string(),
        source: build.source.clone(),
        commit: build.commit.clone(),
        config: Digest::of(&config),
    }
}

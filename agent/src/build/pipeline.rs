//! A build as a sequence of jobs: unpack the source, ask the packs, do the plan's steps or find their layers, ask for the
//! release. It knows what each job may see; how a job runs is the sandbox's.
//!
//! ```text
//!            lowest ──────────────────────────────────────────────────────────────> highest
//! shared     stack   layers of shared steps                                         tools  inputs   upper
//! private    stack   layers of shared steps   source   layers of private steps      tools           upper
//! image      stack   layers of shared steps   source   layers of private steps
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::report::{Exit, Trouble};

use super::log::BuildLog;
use super::manifest::{APP_DIR, Release};
use super::plan::{self, Ground, Keep, Plan, Private, Step};
use super::sandbox::{Job, Ran, Sandbox};
use super::source::{Source, io_trouble};
use super::stage::{self, PACKS_DIR, Stage};
use super::trouble;
use super::verdict::{self, Failed};

/// Exit status with which a step asks for its fallback.
const NEEDS_FALLBACK: u8 = 79;
/// Where config vars are inside a step: on the container's own tmpfs.
const ENV_DIR: &str = "/tmp/berth-env";
/// The classic contract's CACHE_DIR. In the layer's own file system, so that what is installed from it need not be copied;
/// the packs remove it.
const CACHE_DIR: &str = "/app/.berth/cache";
/// The same for steps that run as root: nothing below the app's directory may become root's.
const ROOT_CACHE_DIR: &str = "/var/tmp/berth-cache";

/// What all jobs of one build have in common.
pub struct Pipeline<'a, S: Sandbox> {
    /// Where they run.
    pub sandbox: &'a S,
    /// Where they write.
    pub log: &'a BuildLog,
    /// The source.
    pub source: &'a Source,
    /// Packs, CA bundle, inputs.
    pub stage: &'a Stage,
    /// The packs on the host, for their digests.
    pub packs: PathBuf,
    /// The stack's manifest and layers, lowest first.
    pub stack: (Digest, Vec<PathBuf>),
    /// The environment of every step.
    pub env: BTreeMap<String, String>,
    /// Config vars, for private steps.
    pub config: BTreeMap<String, String>,
    /// What private steps see.
    pub private: Private,
    /// Bytes of disk a step may use, to say so when it used them up.
    pub disk_bytes_max: u64,
    /// Bytes of memory, likewise.
    pub memory_bytes_max: u64,
}

/// What the jobs found and made.
pub struct Outcome<L> {
    /// The pack's folder name.
    pub pack: String,
    /// The plan's notes.
    pub notes: Vec<String>,
    /// What `release` said.
    pub release: Release,
    /// The layers above the stack that make the app, lowest first.
    pub layers: Vec<L>,
}

/// A step that is done.
struct Made<L> {
    key: String,
    layer: L,
    private: bool,
    keep: bool,
}

impl<S: Sandbox> Pipeline<'_, S> {
    /// Does it all. `pack` is the pack to use, if `berth.toml` names one.
    ///
    /// # Errors
    /// The first thing that failed, with its code and the log's last lines.
    pub async fn run(&self, pack: Option<&str>) -> Result<Outcome<S::Layer>, Trouble> {
        let source = self.unpack().await?;
        let (pack, plan) = self.detect(&source, pack).await?;
        self.log.heading(&format!("{} app detected", plan.name));
        for note in &plan.notes {
            self.log.detail(note);
        }
        let packs = (self.packs.clone(), pack.clone());
        let digest = tokio::task::spawn_blocking(move || stage::pack_digest(&packs.0, &packs.1));
        let digest = digest.await.map_err(std::io::Error::other).flatten();
        let digest = digest.map_err(|error| io_trouble("The packs could not be read on the host", &error))?;
        let ground = Ground { stack: self.stack.0.clone(), pack: (pack.clone(), digest) };
        let mut made: Vec<(String, Made<S::Layer>)> = Vec::new();
        for step in &plan.steps {
            let done = self.step(&ground, step, &made, &source).await?;
            made.push((step.name.clone(), done));
        }
        let kept = |private: bool| {
            made.iter().filter(move |(_, m)| m.keep && m.private == private).map(|(_, m)| m.layer.clone())
        };
        let layers: Vec<_> = kept(false).chain([source]).chain(kept(true)).collect();
        let release = self.release(&pack, &layers).await?;
        Ok(Outcome { pack, notes: plan.notes, release, layers })
    }

    /// Unpacks the source as the app's user, in a container that sees nothing else: its layer.
    async fn unpack(&self) -> Result<S::Layer, Trouble> {
        let key = Digest::of(format!("berth source 1 {} {}", self.stack.0, self.private.source).as_bytes());
        if let Some(layer) = self.sandbox.find(key.hex()) {
            return Ok(layer);
        }
        let argv = [
            "tar",
            "--extract",
            "--file=-",
            "--no-same-owner",
            "--no-same-permissions",
            "--directory",
            APP_DIR,
        ];
        let mut job = self.job(self.stack.1.clone(), argv.map(str::to_owned).to_vec());
        job.input = Box::new(tokio::fs::File::from_std(self.source.reader()?));
        job.key = Some(key.hex().to_owned());
        let ran = self.sandbox.run(job, self.log).await?;
        self.layer_of(ran, "unpacking the source")
    }

    /// Asks the packs in their order, in one container, which of them knows the source.
    async fn detect(&self, source: &S::Layer, pack: Option<&str>) -> Result<(String, Plan), Trouble> {
        let argv =
            vec![format!("{PACKS_DIR}/lib/choose"), APP_DIR.to_owned(), pack.unwrap_or_default().to_owned()];
        let mut layers = self.stack.1.clone();
        layers.push(self.sandbox.path(source).to_owned());
        layers.push(self.stage.tools().to_owned());
        let mut job = self.job(layers, argv);
        job.answers = true;
        let ran = self.sandbox.run(job, self.log).await?;
        match ran.exit {
            Exit::Code(0) => {}
            Exit::Code(1) => {
                let asked = pack.map_or_else(
                    || "No pack knows this source: there is no package.json, requirements.txt, pyproject.toml, index.html or Procfile in its root folder (a Dockerfile or heroku.yml is not built)".to_owned(),
                    |pack| format!("The pack {pack}, which berth.toml asks for, does not know this source or does not exist"),
                );
                return Err(self.with_tail(trouble(Code::B10, asked)));
            }
            _ => return Err(self.failed(&ran, "detection")),
        }
        let mut parts = ran.answer.splitn(2, |byte| *byte == b'\n');
        let chosen = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if chosen.is_empty() || !chosen.bytes().all(plain) {
            return Err(trouble(Code::B20, "The packs gave no answer that can be read".to_owned()));
        }
        let plan = Plan::parse(parts.next().unwrap_or_default());
        Ok((chosen, plan.map_err(|error| trouble(Code::B20, error.to_string()))?))
    }

    /// Finds a step's layer, or makes it.
    async fn step(
        &self,
        ground: &Ground,
        step: &Step,
        made: &[(String, Made<S::Layer>)],
        source: &S::Layer,
    ) -> Result<Made<S::Layer>, Trouble> {
        let on: Vec<&Made<S::Layer>> = match &step.on {
            Some(on) => made.iter().filter(|(name, _)| on.contains(name)).map(|(_, made)| made).collect(),
            None => made.iter().map(|(_, made)| made).collect(),
        };
        let files = self.inputs_of(step).await?;
        let digests = files.iter().map(|(name, content)| (name.clone(), Digest::of(content))).collect();
        let below: Vec<String> = on.iter().map(|made| made.key.clone()).collect();
        let private = (!step.shared).then_some(&self.private);
        let key = plan::key(ground, step, &below, &digests, private);
        let keep = step.keep == Keep::InImage;
        if let Some(layer) = self.sandbox.find(&key) {
            self.log.heading(&format!("Using cached {}", plan::one_line(step.title())));
            return Ok(Made { key, layer, private: !step.shared, keep });
        }
        let mut roots: Vec<(PathBuf, bool)> =
            on.iter().map(|made| (self.sandbox.path(&made.layer).to_owned(), made.private)).collect();
        let mut ran = self.compile(ground, step, &roots, source, &files, &key).await?;
        if let (Exit::Code(NEEDS_FALLBACK), Some(fallback)) = (ran.exit, &step.fallback) {
            let first = Box::pin(self.step(ground, fallback, made, source)).await?;
            roots.push((self.sandbox.path(&first.layer).to_owned(), first.private));
            ran = self.compile(ground, step, &roots, source, &files, &key).await?;
        }
        Ok(Made { key, layer: self.layer_of(ran, &step.name)?, private: !step.shared, keep })
    }

    async fn compile(
        &self,
        ground: &Ground,
        step: &Step,
        on: &[(PathBuf, bool)],
        source: &S::Layer,
        files: &BTreeMap<String, Vec<u8>>,
        key: &str,
    ) -> Result<Ran<S::Layer>, Trouble> {
        let unstaged =
            |error| io_trouble("The inputs of a build step could not be laid out on the host", &error);
        let mut layers = self.stack.1.clone();
        layers.extend(on.iter().filter(|(_, private)| !private).map(|(path, _)| path.clone()));
        if !step.shared {
            layers.push(self.sandbox.path(source).to_owned());
        }
        layers.extend(on.iter().filter(|(_, private)| *private).map(|(path, _)| path.clone()));
        layers.push(self.stage.tools().to_owned());
        if step.shared && !files.is_empty() {
            layers.push(self.stage.inputs(&step.name, files).map_err(unstaged)?);
        }
        let mut argv = vec![format!("{PACKS_DIR}/lib/enter"), ENV_DIR.to_owned()];
        argv.push(format!("{PACKS_DIR}/{}/bin/compile", ground.pack.0));
        let cache = if step.root { ROOT_CACHE_DIR } else { CACHE_DIR };
        argv.extend([APP_DIR, cache, ENV_DIR, &step.name].map(str::to_owned));
        argv.extend(step.args.iter().cloned());
        let mut job = self.job(layers, argv);
        let config =
            if step.shared { stage::config_tar(&BTreeMap::new()) } else { stage::config_tar(&self.config) };
        job.input = Box::new(std::io::Cursor::new(config.map_err(unstaged)?));
        if let (false, Some(commit)) = (step.shared, &self.private.commit) {
            job.env.insert("SOURCE_VERSION".to_owned(), commit.clone());
            job.env.insert("BERTH_COMMIT".to_owned(), commit.clone());
        }
        (job.root, job.network, job.key) = (step.root, step.network, Some(key.to_owned()));
        self.sandbox.run(job, self.log).await
    }

    /// The files that a shared step sees.
    async fn inputs_of(&self, step: &Step) -> Result<BTreeMap<String, Vec<u8>>, Trouble> {
        let names: Vec<&str> = step.inputs.iter().map(String::as_str).collect();
        let mut files = if names.is_empty() { BTreeMap::new() } else { self.source.read(&names).await? };
        if let Some(missing) = names.iter().find(|name| !files.contains_key(**name)) {
            let why = format!(
                "{missing} must be a regular file of the source, not a link, to install what it lists"
            );
            return Err(trouble(Code::B14, why));
        }
        files.extend(step.files.iter().map(|(name, content)| (name.clone(), content.clone().into_bytes())));
        Ok(files)
    }

    async fn release(&self, pack: &str, layers: &[S::Layer]) -> Result<Release, Trouble> {
        let argv = vec![format!("{PACKS_DIR}/{pack}/bin/release"), APP_DIR.to_owned()];
        let mut roots = self.stack.1.clone();
        roots.extend(layers.iter().map(|layer| self.sandbox.path(layer).to_owned()));
        roots.push(self.stage.tools().to_owned());
        let mut job = self.job(roots, argv);
        job.answers = true;
        let ran = self.sandbox.run(job, self.log).await?;
        if ran.exit != Exit::Code(0) {
            return Err(self.failed(&ran, "release"));
        }
        Release::parse(&ran.answer)
    }

    fn job(&self, layers: Vec<PathBuf>, argv: Vec<String>) -> Job {
        Job {
            layers,
            argv,
            env: self.env.clone(),
            input: Box::new(tokio::io::empty()),
            root: false,
            network: false,
            answers: false,
            key: None,
        }
    }

    fn layer_of(&self, ran: Ran<S::Layer>, step: &str) -> Result<S::Layer, Trouble> {
        match ran.layer {
            Some(layer) => Ok(layer),
            None => Err(self.failed(&ran, step)),
        }
    }

    fn failed(&self, ran: &Ran<S::Layer>, step: &str) -> Trouble {
        let failed = Failed {
            step,
            exit: ran.exit,
            disk_full: ran.disk_full,
            disk_bytes_max: self.disk_bytes_max,
            memory_bytes_max: self.memory_bytes_max,
        };
        verdict::of(&failed, self.log.tail())
    }

    fn with_tail(&self, trouble: Trouble) -> Trouble {
        Trouble { log_tail: self.log.tail(), ..trouble }
    }
}

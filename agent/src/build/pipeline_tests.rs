//! The pipeline against a sandbox that runs nothing: which jobs there are, and what each of them sees.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use berth_wire::code::Code;
use berth_wire::digest::Digest;
use berth_wire::report::{Exit, Trouble};
use tokio::io::AsyncReadExt;

use super::log::BuildLog;
use super::pipeline::{Outcome, Pipeline};
use super::plan::Private;
use super::sandbox::{Job, Ran, Sandbox};
use super::source::Source;
use super::stage::Stage;

/// Remembers layers by their keys, answers `detect` with a given plan, and keeps what each job saw.
struct Fake {
    plan: &'static str,
    exits: Mutex<BTreeMap<String, Vec<Exit>>>,
    layers: Mutex<BTreeMap<String, PathBuf>>,
    saw: Mutex<Vec<Saw>>,
}

#[derive(Debug, Clone)]
struct Saw {
    step: String,
    layers: Vec<String>,
    config: bool,
    inputs: Vec<String>,
}

impl Fake {
    fn new(plan: &'static str) -> Self {
        Self { plan, exits: Mutex::default(), layers: Mutex::default(), saw: Mutex::default() }
    }

    fn steps(&self) -> Vec<String> {
        self.saw.lock().unwrap().drain(..).map(|saw| saw.step).collect()
    }

    fn of(&self, step: &str) -> Saw {
        self.saw.lock().unwrap().iter().rev().find(|saw| saw.step == step).unwrap().clone()
    }
}

impl Sandbox for Fake {
    type Layer = PathBuf;

    fn path<'a>(&self, layer: &'a PathBuf) -> &'a Path {
        layer
    }

    fn find(&self, key: &str) -> Option<PathBuf> {
        self.layers.lock().unwrap().get(key).cloned()
    }

    async fn run(&self, mut job: Job, _log: &BuildLog) -> Result<Ran<PathBuf>, Trouble> {
        let program = job.argv[0].clone();
        let step = match program.rsplit('/').next().unwrap() {
            "enter" => job.argv[6].clone(),
            other => other.to_owned(),
        };
        let mut input = Vec::new();
        job.input.read_to_end(&mut input).await.unwrap();
        let inputs = job.layers.iter().filter(|path| path.to_string_lossy().contains("inputs-"));
        let inputs = inputs.flat_map(|path| std::fs::read_dir(path.join("app")).unwrap());
        let inputs = inputs.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let config = String::from_utf8_lossy(&input).contains("SECRET");
        let saw = Saw { step: step.clone(), layers: job.layers.iter().map(name).collect(), config, inputs };
        self.saw.lock().unwrap().push(saw);
        let exit = self.exits.lock().unwrap().get_mut(&step).and_then(Vec::pop).unwrap_or(Exit::Code(0));
        let layer = match (exit, &job.key) {
            (Exit::Code(0), Some(key)) => {
                let layer = PathBuf::from(format!("/layers/{step}"));
                self.layers.lock().unwrap().insert(key.clone(), layer.clone());
                Some(layer)
            }
            _ => None,
        };
        let answer = match step.as_str() {
            "choose" => format!("python\n{}\n", self.plan).into_bytes(),
            "release" => br#"{"processes": {"web": "x"}, "env": {}}"#.to_vec(),
            _ => Vec::new(),
        };
        Ok(Ran { exit, answer, layer, disk_full: false })
    }
}

const PLAN: &str = r#"{"name": "Python", "steps": [
    {"name": "uv", "shared": true, "keep": false},
    {"name": "dependencies", "shared": true, "inputs": ["requirements.txt"], "on": ["uv"],
     "fallback": {"name": "compilers", "shared": true, "root": true, "on": [], "keep": false}},
    {"name": "collectstatic", "on": ["dependencies"]}
]}"#;

async fn run(fake: &Fake, requirements: &str, page: &str) -> Result<Outcome<PathBuf>, Trouble> {
    let dir = tempfile::tempdir().unwrap();
    let packs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/packs");
    let stage = Stage::new(dir.path().join("stage"), &packs, None).unwrap();
    let mut builder = tar::Builder::new(std::fs::File::create(stage.source_path()).unwrap());
    for (name, content) in [("requirements.txt", requirements), ("page.html", page)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.finish().unwrap();
    let source = Source::open(stage.source_path()).await.unwrap();
    let pipeline = Pipeline {
        sandbox: fake,
        log: &BuildLog::new(),
        source: &source,
        stage: &stage,
        packs,
        stack: (Digest::of(b"stack"), vec![PathBuf::from("/layers/stack")]),
        env: BTreeMap::new(),
        config: BTreeMap::from([("SECRET".to_owned(), "s".to_owned())]),
        private: Private {
            app: "app".to_owned(),
            source: Digest::of(&std::fs::read(stage.source_path()).unwrap()),
            commit: None,
            config: Digest::of(b"s"),
        },
        disk_bytes_max: 1,
        memory_bytes_max: 1,
    };
    pipeline.run(None).await
}

fn root_is_needed() -> bool {
    // Inputs are given to the app's user, which only root can do.
    let needed = !nix::unistd::geteuid().is_root();
    if needed {
        eprintln!("not run: needs root");
    }
    needed
}

#[tokio::test]
async fn a_shared_step_must_see_its_inputs_and_nothing_else() {
    if root_is_needed() {
        return;
    }
    let fake = Fake::new(PLAN);
    let outcome = run(&fake, "flask", "a").await.unwrap();
    assert_eq!(
        outcome.layers,
        ["dependencies", "tar", "collectstatic"].map(|name| Path::new("/layers").join(name))
    );
    let shared = fake.of("dependencies");
    assert_eq!(shared.layers, ["stack", "uv", "tools", "inputs-dependencies"]);
    assert_eq!(shared.inputs, ["requirements.txt"]);
    assert!(!shared.config);
    let private = fake.of("collectstatic");
    assert_eq!(private.layers, ["stack", "dependencies", "tar", "tools"]);
    assert!(private.config);
    assert_eq!(fake.of("release").layers, ["stack", "dependencies", "tar", "collectstatic", "tools"]);
}

#[tokio::test]
async fn an_unchanged_lock_file_must_install_nothing() {
    if root_is_needed() {
        return;
    }
    let fake = Fake::new(PLAN);
    run(&fake, "flask", "a").await.unwrap();
    assert_eq!(fake.steps(), ["tar", "choose", "uv", "dependencies", "collectstatic", "release"]);
    run(&fake, "flask", "b").await.unwrap();
    assert_eq!(fake.steps(), ["tar", "choose", "collectstatic", "release"]);
    run(&fake, "django", "b").await.unwrap();
    assert_eq!(fake.steps(), ["tar", "choose", "dependencies", "collectstatic", "release"]);
}

#[tokio::test]
async fn a_step_that_asks_for_its_fallback_must_get_it_and_run_again() {
    if root_is_needed() {
        return;
    }
    let fake = Fake::new(PLAN);
    fake.exits.lock().unwrap().insert("dependencies".to_owned(), vec![Exit::Code(79)]);
    let outcome = run(&fake, "flask", "a").await.unwrap();
    assert_eq!(fake.of("dependencies").layers, ["stack", "uv", "compilers", "tools", "inputs-dependencies"]);
    assert!(!outcome.layers.iter().any(|layer| layer.ends_with("compilers")));
}

#[tokio::test]
async fn a_failed_step_must_end_the_build_with_its_code() {
    if root_is_needed() {
        return;
    }
    for (step, exit, code) in [
        ("dependencies", Exit::Code(1), Code::B14),
        ("collectstatic", Exit::Code(1), Code::B20),
        ("collectstatic", Exit::OutOfMemory, Code::B15),
        ("choose", Exit::Code(1), Code::B10),
        ("choose", Exit::Code(2), Code::B20),
        ("tar", Exit::Code(2), Code::B20),
    ] {
        let fake = Fake::new(PLAN);
        fake.exits.lock().unwrap().insert(step.to_owned(), vec![exit]);
        let failed = run(&fake, "flask", "a").await.err().unwrap();
        assert_eq!(failed.code, code, "{step} {exit:?}: {}", failed.message);
    }
}

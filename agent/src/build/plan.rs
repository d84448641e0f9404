//! The plan that a pack's `detect` prints, checked, and the keys of its layers. Pure. The plan comes out of a container
//! that has seen the app's source, so it is checked like any input; its format is in `deploy/packs/README.md`.

use std::collections::{BTreeMap, BTreeSet};

use berth_wire::digest::Digest;
use serde::{Deserialize, Serialize};

/// Bounds of a plan: first-party packs stay far below; they keep a broken one from filling the log or the key store.
const STEPS_MAX: usize = 20;
const NOTES_MAX: usize = 20;
const NOTE_CHARS_MAX: usize = 500;

/// How a pack builds one source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What was found, for people: `Python`.
    pub name: String,
    /// What is to be done, in order.
    pub steps: Vec<Step>,
    /// For the person who pushed.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One step: one container, one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// What `compile` is called with.
    pub name: String,
    /// What it makes, for the line "Using cached …".
    #[serde(skip_serializing)]
    pub title: Option<String>,
    /// More arguments.
    pub args: Vec<String>,
    /// Whether every app may use the layer. The step then sees no more than `inputs` and `files`.
    pub shared: bool,
    /// Files of the source that a shared step sees.
    pub inputs: Vec<String>,
    /// Files that a shared step sees with this content.
    pub files: BTreeMap<String, String>,
    /// The steps whose layers are below; all earlier ones if absent.
    #[serde(skip_serializing)]
    pub on: Option<Vec<String>>,
    /// Whether the layer is part of the image.
    #[serde(skip_serializing)]
    pub keep: Keep,
    /// Runs as root of its container.
    pub root: bool,
    /// May reach the internet.
    pub network: bool,
    /// Done first, and this step again, when this one asks for it.
    pub fallback: Option<Box<Step>>,
}

/// Whether a layer is part of the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "bool")]
pub enum Keep {
    /// It is.
    #[default]
    InImage,
    /// It is only below later steps.
    BuildOnly,
}

impl From<bool> for Keep {
    fn from(keep: bool) -> Self {
        if keep { Self::InImage } else { Self::BuildOnly }
    }
}

impl Step {
    /// What people call what it makes.
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.name)
    }
}

/// A plan that is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pack's plan cannot be followed: {0}")]
pub struct InvalidPlan(String);

impl Plan {
    /// Reads and checks a plan.
    ///
    /// # Errors
    /// No JSON of that form, a name that occurs twice, a step on one that is not before it, a path that leaves the source.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidPlan> {
        let mut plan: Self = serde_json::from_slice(text).map_err(|error| InvalidPlan(error.to_string()))?;
        if plan.steps.len() > STEPS_MAX || plan.notes.len() > NOTES_MAX {
            return Err(InvalidPlan(format!("it has more than {STEPS_MAX} steps or {NOTES_MAX} notes")));
        }
        plan.name = one_line(&plan.name);
        plan.notes.iter_mut().for_each(|note| *note = one_line(note));
        let mut names = BTreeSet::new();
        for step in &plan.steps {
            check(step, &names)?;
            if let Some(fallback) = &step.fallback {
                check(fallback, &names)?;
            }
            if !names.insert(step.name.clone()) {
                return Err(InvalidPlan(format!("step {:?} is there twice", step.name)));
            }
        }
        Ok(plan)
    }
}

fn check(step: &Step, earlier: &BTreeSet<String>) -> Result<(), InvalidPlan> {
    let name = &step.name;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > 40 || !name.bytes().all(plain) {
        return Err(InvalidPlan(format!("{name:?} is no step name")));
    }
    if let Some(missing) = step.on.iter().flatten().find(|on| !earlier.contains(*on)) {
        return Err(InvalidPlan(format!("step {name} is on {missing:?}, which is not before it")));
    }
    let sees_files = !step.inputs.is_empty() || !step.files.is_empty();
    if !step.shared && sees_files {
        return Err(InvalidPlan(format!(
            "step {name} is not shared but has inputs: it sees the whole source"
        )));
    }
    if let Some(path) = step.inputs.iter().chain(step.files.keys()).find(|path| !stays_inside(path)) {
        return Err(InvalidPlan(format!("step {name} has the input {path:?}, which leaves the source")));
    }
    Ok(())
}

/// Whether a relative path names something below the folder it is relative to, however links are.
pub fn stays_inside(path: &str) -> bool {
    path.len() <= 1_024
        && !path.is_empty()
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !path.contains('\0')
}

/// Text from a container as one line without control characters.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(NOTE_CHARS_MAX).collect()
}

/// What every step of one build could see, whatever it does.
#[derive(Debug, Clone, Serialize)]
pub struct Ground {
    /// The stack's manifest.
    pub stack: Digest,
    /// The pack's name and the digest of its programs.
    pub pack: (String, Digest),
}

/// What only private steps see.
#[derive(Debug, Clone, Serialize)]
pub struct Private {
    /// The app.
    pub app: String,
    /// The whole source.
    pub source: Digest,
    /// The commit, which is in their environment.
    pub commit: Option<String>,
    /// The config vars, hashed: their values are secrets.
    pub config: Digest,
}

/// The key of a step's layer: the hash of everything that the step could see.
///
/// `below` are the keys of the layers below, lowest first; `inputs` the digests of the files a shared step sees.
pub fn key(
    ground: &Ground,
    step: &Step,
    below: &[String],
    inputs: &BTreeMap<String, Digest>,
    private: Option<&Private>,
) -> String {
    // An encoding of these types cannot fail: all map keys are strings.
    let seen =
        serde_json::to_vec(&("berth layer 1", ground, step, below, inputs, private)).unwrap_or_default();
    Digest::of(&seen).hex().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(text: &str) -> Step {
        serde_json::from_str(text).unwrap()
    }

    fn ground() -> Ground {
        Ground { stack: Digest::of(b"stack"), pack: ("python".into(), Digest::of(b"pack")) }
    }

    fn private(source: &[u8]) -> Private {
        Private { app: "a".into(), source: Digest::of(source), commit: None, config: Digest::of(b"") }
    }

    #[test]
    fn a_plan_must_be_read_with_its_defaults() {
        let plan = Plan::parse(
            br#"{"name":"Python","steps":[{"name":"uv","shared":true},{"name":"app","keep":false}]}"#,
        );
        let plan = plan.unwrap();
        assert_eq!(plan.steps[0].keep, Keep::InImage);
        assert_eq!(plan.steps[1].keep, Keep::BuildOnly);
        assert_eq!(plan.steps[1].title(), "app");
    }

    #[test]
    fn a_plan_that_breaks_a_rule_must_be_refused() {
        for (text, part) in [
            (r#"{"name":"x","steps":[{"name":"a"},{"name":"a"}]}"#, "twice"),
            (r#"{"name":"x","steps":[{"name":"a","on":["b"]}]}"#, "not before"),
            (r#"{"name":"x","steps":[{"name":"a","inputs":["f"]}]}"#, "not shared"),
            (r#"{"name":"x","steps":[{"name":"a","shared":true,"inputs":["../f"]}]}"#, "leaves"),
            (r#"{"name":"x","steps":[{"name":"a","shared":true,"files":{"/f":""}}]}"#, "leaves"),
            (r#"{"name":"x","steps":[{"name":"a b"}]}"#, "step name"),
            (r#"{"name":"x","steps":[],"more":1}"#, "more"),
            ("", "EOF"),
        ] {
            let error = Plan::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_must_change_with_everything_the_step_sees() {
        let base = step(r#"{"name":"dependencies","shared":true,"inputs":["r"],"args":["3.13"]}"#);
        let inputs = BTreeMap::from([("r".to_owned(), Digest::of(b"flask"))]);
        let first = key(&ground(), &base, &["k".into()], &inputs, None);
        assert_eq!(first, key(&ground(), &base, &["k".into()], &inputs, None));
        let other_args = Step { args: vec!["3.11".into()], ..base.clone() };
        let other_inputs = BTreeMap::from([("r".to_owned(), Digest::of(b"django"))]);
        let other_stack = Ground { stack: Digest::of(b"s2"), ..ground() };
        for other in [
            key(&ground(), &other_args, &["k".into()], &inputs, None),
            key(&ground(), &base, &["k2".into()], &inputs, None),
            key(&ground(), &base, &["k".into()], &other_inputs, None),
            key(&other_stack, &base, &["k".into()], &inputs, None),
            key(&ground(), &base, &["k".into()], &inputs, Some(&private(b"s"))),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn a_private_key_must_change_with_the_source_and_a_title_must_change_nothing() {
        let base = step(r#"{"name":"collectstatic"}"#);
        let none = BTreeMap::new();
        let first = key(&ground(), &base, &[], &none, Some(&private(b"a")));
        assert_ne!(first, key(&ground(), &base, &[], &none, Some(&private(b"b"))));
        let titled = Step { title: Some("x".into()), ..base };
        assert_eq!(first, key(&ground(), &titled, &[], &none, Some(&private(b"a"))));
    }
}

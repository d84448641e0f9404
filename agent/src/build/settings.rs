//! What else a source says about the app: `berth.toml`, which is Berth's own and strict, and `app.json`, which was
//! written for others, so that what Berth does not do of it becomes a note. Pure.

use std::collections::BTreeMap;

use berth_wire::image::HealthCheck;
use berth_wire::name::ConfigKey;
use serde::Deserialize;
use serde_json::Value;

/// What `berth.toml` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The pack to build with, in place of the first that matches.
    pub pack: Option<String>,
    /// Health check of `web`.
    pub health: HealthCheck,
    /// Seconds between SIGTERM and SIGKILL.
    pub stop_grace_seconds: Option<u32>,
}

/// A `berth.toml` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("berth.toml line {line}: {problem}")]
pub struct Malformed {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong and what is allowed.
    pub problem: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    build: BuildSection,
    health: HealthSection,
    deploy: DeploySection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BuildSection {
    pack: Option<toml::Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HealthSection {
    path: Option<toml::Spanned<String>>,
    boot_timeout: Option<toml::Spanned<u32>>,
    interval: Option<toml::Spanned<u32>>,
    timeout: Option<toml::Spanned<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DeploySection {
    stop_grace: Option<toml::Spanned<u32>>,
}

/// Reads a `berth.toml`.
///
/// # Errors
/// What is no TOML, an unknown key, or a value outside its range, with the line.
pub fn parse(text: &[u8]) -> Result<Settings, Malformed> {
    let text = std::str::from_utf8(text)
        .map_err(|_| Malformed { line: 1, problem: "it is not UTF-8 text".to_owned() })?;
    let file: File = toml::from_str(text).map_err(|error| Malformed {
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        problem: error.message().to_owned(),
    })?;
    let mut settings = Settings::default();
    let within = |name: &str, value: Option<toml::Spanned<u32>>, least: u32, most: u32| match value {
        Some(value) if (least..=most).contains(value.get_ref()) => Ok(Some(value.into_inner())),
        Some(value) => Err(Malformed {
            line: line_of(text, value.span().start),
            problem: format!("{name} is {}; use {least} to {most} seconds", value.get_ref()),
        }),
        None => Ok(None),
    };
    let health = &mut settings.health;
    // 600 s: longer than any runtime takes to start, short enough that a broken release is not a lost afternoon.
    if let Some(seconds) = within("boot_timeout", file.health.boot_timeout, 1, 600)? {
        health.boot_timeout_seconds = seconds;
    }
    if let Some(seconds) = within("interval", file.health.interval, 1, 3_600)? {
        health.interval_seconds = seconds;
    }
    if let Some(seconds) = within("timeout", file.health.timeout, 1, 60)? {
        health.timeout_seconds = seconds;
    }
    if let Some(path) = file.health.path {
        let fits = path.get_ref().starts_with('/') && path.get_ref().len() <= 1_024;
        if !fits || !path.get_ref().bytes().all(|byte| byte.is_ascii_graphic()) {
            let line = line_of(text, path.span().start);
            return Err(Malformed {
                line,
                problem: "path must be a URL path that starts with /, e.g. /healthz".to_owned(),
            });
        }
        health.http_path = Some(path.into_inner());
    }
    settings.stop_grace_seconds = within("stop_grace", file.deploy.stop_grace, 1, 600)?;
    if let Some(pack) = file.build.pack {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if pack.get_ref().is_empty() || !pack.get_ref().bytes().all(plain) {
            let line = line_of(text, pack.span().start);
            return Err(Malformed { line, problem: "pack must be a pack's name, e.g. python".to_owned() });
        }
        settings.pack = Some(pack.into_inner());
    }
    Ok(settings)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// What Berth takes from an `app.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppJson {
    /// Environment defaults; config vars override them.
    pub env: BTreeMap<String, String>,
    /// What was not done, and what to do instead.
    pub notes: Vec<String>,
}

/// Reads an `app.json` (Heroku's app manifest). Never fails: it was not written for Berth.
///
/// `config` are the names of the config vars that are set.
pub fn parse_app_json(text: &[u8], config: &BTreeMap<String, String>) -> AppJson {
    let mut found = AppJson::default();
    let Ok(Value::Object(manifest)) = serde_json::from_slice::<Value>(text) else {
        found.notes.push("app.json is not a JSON object and was ignored".to_owned());
        return found;
    };
    for (key, wish) in manifest.get("env").and_then(Value::as_object).into_iter().flatten() {
        if key.parse::<ConfigKey>().is_err() || key == "PATH" {
            found.notes.push(format!("app.json: env {key:?} cannot be set and was ignored"));
            continue;
        }
        let value = wish.as_str().or_else(|| wish.get("value").and_then(Value::as_str));
        let required = wish.get("required").and_then(Value::as_bool).unwrap_or(true);
        match value {
            Some(value) => drop(found.env.insert(key.clone(), value.to_owned())),
            None if required && !config.contains_key(key) => {
                found.notes.push(format!("app.json says {key} is required: berth config set {key}=…"));
            }
            None => {}
        }
    }
    for (key, instead) in [
        ("formation", "berth scale sets how many of each process type run"),
        ("scripts", "put a command into the Procfile as release: to run it before each release"),
        ("addons", "Berth has no add-ons; set their addresses with berth config set"),
        ("buildpacks", "write [build] pack into berth.toml to choose a pack"),
    ] {
        let says_something = match manifest.get(key) {
            Some(Value::Object(value)) => !value.is_empty(),
            Some(Value::Array(value)) => !value.is_empty(),
            _ => false,
        };
        if says_something {
            found.notes.push(format!("app.json: {key} is not applied; {instead}"));
        }
    }
    found
}

/// Files of other platforms that mean something there and nothing here, and what to do instead.
pub const FOREIGN_FILES: [(&str, &str); 6] = [
    ("heroku.yml", "the packs find out what to build, and the Procfile says what to run"),
    ("Dockerfile", "the packs find out what to build, and the Procfile says what to run"),
    ("Aptfile", "an app has the stack's own Debian packages and no others"),
    (".buildpacks", "write [build] pack into berth.toml to choose a pack"),
    (".slugignore", "what it names is in the image; remove it from the repository, or name it in .gitignore"),
    (
        ".tool-versions",
        "a Python version belongs in .python-version, a Node version in engines.node of package.json",
    ),
];

/// A note for each of them that the source has.
pub fn notes_of_foreign_files(has: impl Fn(&str) -> bool) -> Vec<String> {
    let there = FOREIGN_FILES.iter().filter(|(name, _)| has(name));
    there.map(|(name, instead)| format!("{name} is not read: {instead}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_must_be_read() {
        let text = b"[build]\npack = \"python\"\n[health]\npath = \"/healthz\"\nboot_timeout = 90\ninterval = 10\ntimeout = 2\n[deploy]\nstop_grace = 15\n";
        let settings = parse(text).unwrap();
        assert_eq!(settings.pack.as_deref(), Some("python"));
        assert_eq!(settings.health.http_path.as_deref(), Some("/healthz"));
        assert_eq!(settings.health.boot_timeout_seconds, 90);
        assert_eq!(settings.stop_grace_seconds, Some(15));
    }

    #[test]
    fn what_is_wrong_must_be_named_with_its_line() {
        for (text, line, part) in [
            ("[health]\npaht = \"/\"", 2, "paht"),
            ("[health]\n\npath = \"healthz\"", 3, "starts with /"),
            ("[health]\nboot_timeout = 0", 2, "1 to 600"),
            ("[deploy]\nstop_grace = \"30\"", 2, "invalid type"),
            ("[health\n", 1, ""),
            ("[build]\npack = \"../x\"", 2, "pack"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn what_other_platforms_read_must_not_be_ignored_silently() {
        let notes = notes_of_foreign_files(|name| name == "Aptfile" || name == ".slugignore");
        assert_eq!(notes.len(), 2);
        assert!(notes[0].starts_with("Aptfile is not read: "), "{notes:?}");
    }

    #[test]
    fn an_empty_file_must_give_the_defaults() {
        assert_eq!(parse(b"").unwrap(), Settings::default());
    }

    #[test]
    fn an_app_json_must_give_defaults_and_say_what_is_not_applied() {
        let text = br#"{"name": "x", "env": {"A": "1", "B": {"value": "2"}, "C": {"description": "c"},
            "D": {"required": false}, "PORT": "1"}, "formation": {"web": {"quantity": 1}}, "scripts": {}}"#;
        let found = parse_app_json(text, &BTreeMap::new());
        assert_eq!(found.env.keys().map(String::as_str).collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(found.notes.len(), 3, "{:?}", found.notes);
        assert!(found.notes.iter().any(|note| note.contains("C is required")));
        assert!(parse_app_json(b"[", &BTreeMap::new()).notes[0].contains("ignored"));
    }
}

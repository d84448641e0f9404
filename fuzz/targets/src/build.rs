//! What a source and a pack say: Procfile, `berth.toml`, `app.json`, `.env`, a pack's plan and release.

use std::collections::BTreeMap;

use berth_agent::build::{manifest, plan, procfile, settings};
use berth_control_plane::domain::command_line;

use crate::{Target, target, texts};

/// The command line's own, which is a program and no library.
#[path = "../../../cli/src/dotenv.rs"]
mod dotenv;

pub const TARGETS: &[Target] = &[
    target("procfile", a_procfile, procfiles),
    target("berth-toml", berth_toml, tomls),
    target("app-json", app_json, app_jsons),
    target("dotenv", a_dotenv, dotenvs),
    target("pack", pack, packs),
    target("command-line", a_command_line, command_lines),
];

fn a_procfile(input: &[u8]) {
    match procfile::parse(input) {
        Ok(processes) => {
            assert!(processes.len() <= 50);
            assert!(processes.values().all(|command| !command.is_empty() && !command.contains(['\0', '\n'])));
            let again: String =
                processes.iter().map(|(name, command)| format!("{name}: {command}\n")).collect();
            assert_eq!(procfile::parse(again.as_bytes()).unwrap(), processes);
        }
        Err(malformed) => check_line(malformed.line, input, &malformed.to_string()),
    }
}

fn check_line(line: usize, input: &[u8], sentence: &str) {
    let lines = input.split(|byte| *byte == b'\n').count();
    assert!((1..=lines).contains(&line), "line {line} of {lines}");
    assert!(!sentence.is_empty());
}

fn berth_toml(input: &[u8]) {
    match settings::parse(input) {
        Ok(settings) => {
            let health = settings.health;
            assert!((1..=600).contains(&health.boot_timeout_seconds));
            assert!(
                (1..=3_600).contains(&health.interval_seconds) && (1..=60).contains(&health.timeout_seconds)
            );
            let path_is_plain =
                |path: &String| path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
            assert!(health.http_path.iter().all(path_is_plain), "{:?}", health.http_path);
            // It becomes a directory's name.
            assert!(settings.pack.iter().all(|pack| !pack.is_empty() && !pack.contains(['/', '.', '\0'])));
        }
        Err(malformed) => check_line(malformed.line, input, &malformed.to_string()),
    }
}

fn app_json(input: &[u8]) {
    let found = settings::parse_app_json(input, &BTreeMap::new());
    assert!(!found.env.contains_key("PATH") && !found.env.contains_key("PORT"));
    assert!(found.env.keys().all(|key| !key.is_empty() && !key.contains(['=', '\0'])));
}

fn a_dotenv(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(vars) = dotenv::parse(&text) else { return };
    let quoted = |value: &str| {
        let escaped =
            value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
        format!("\"{escaped}\"")
    };
    let again: String = vars.iter().map(|(key, value)| format!("{key}={}\n", quoted(value))).collect();
    // A carriage return inside a value cannot be written in the file's own terms.
    if !vars.values().any(|value| value.contains('\r')) {
        assert_eq!(dotenv::parse(&again).unwrap(), vars, "{again:?}");
    }
}

fn pack(input: &[u8]) {
    let _ = manifest::Release::parse(input);
    let Ok(plan) = plan::Plan::parse(input) else { return };
    assert!(plan.steps.len() <= 20 && plan.notes.len() <= 20);
    assert!(!plan.name.contains('\n') && plan.notes.iter().all(|note| !note.contains(['\n', '\u{1b}'])));
    let fallbacks = plan.steps.iter().filter_map(|step| step.fallback.as_deref());
    for step in plan.steps.iter().chain(fallbacks) {
        let climbs = |path: &String| path.starts_with('/') || path.split('/').any(|part| part == "..");
        assert!(!step.inputs.iter().chain(step.files.keys()).any(climbs), "{step:?}");
        assert!(!step.name.contains(['/', '.']));
    }
}

fn a_command_line(input: &[u8]) {
    let line = String::from_utf8_lossy(input);
    let argv = command_line::argv(&line);
    assert_eq!(argv[..2], ["/bin/sh", "-c"]);
    // `exec` is put before a command or not: nothing is lost or changed.
    let added = argv[2].len() - line.len();
    assert!(added == 0 || added == "exec ".len(), "{line:?} became {:?}", argv[2]);
    if added == 0 {
        assert_eq!(argv[2], line);
    } else {
        assert_eq!(command_line::line(&argv), line);
        let at = (0..=line.len()).find(|at| {
            line.is_char_boundary(*at) && argv[2] == format!("{}exec {}", &line[..*at], &line[*at..])
        });
        assert!(at.is_some(), "{line:?} became {:?}", argv[2]);
    }
}

fn procfiles() -> Vec<Vec<u8>> {
    texts(&[
        "web: gunicorn app:app\nworker: python w.py\n",
        "# comment\n\nweb:x",
        "\u{feff}web: a\r\n",
        "web a",
        "release: x; y && z",
    ])
}

fn tomls() -> Vec<Vec<u8>> {
    texts(&[
        "[build]\npack = \"python\"\n[health]\npath = \"/healthz\"\nboot_timeout = 90\ninterval = 10\ntimeout = 2\n[deploy]\nstop_grace = 15\n",
        "[health]\npaht = 1",
        "build.pack = 'x'",
    ])
}

fn app_jsons() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"name": "x", "env": {"A": "1", "B": {"value": "2"}, "C": {"description": "c", "required": true}, "PATH": "x"}, "formation": {"web": 1},
            "scripts": {"a": "b"}, "addons": ["x"], "buildpacks": []}"#,
    ])
}

fn dotenvs() -> Vec<Vec<u8>> {
    texts(&[
        "A=1\nexport B='x y'\nC=\"a\\n\\\"b\\\\\\$\"\n# no\nD=\"two\nlines\"\nE=x # y\n",
        "A",
        "=x",
        "A='",
        "A=\"\\",
    ])
}

fn packs() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"name": "Python", "steps": [{"name": "runtime", "title": "Python 3.13", "args": ["3.13"], "shared": true, "inputs": ["a/b"],
            "files": {"c": "d"}, "network": true, "root": true}, {"name": "deps", "on": ["runtime"], "keep": false,
            "fallback": {"name": "deps", "args": ["x"]}}], "notes": ["one"]}"#,
        r#"{"processes": {"web": "x"}, "env": {"A": "b"}}"#,
    ])
}

fn command_lines() -> Vec<Vec<u8>> {
    texts(&[
        "gunicorn app:app --bind 0.0.0.0:$PORT",
        "cd src && A=1 node 'x y'; exec z",
        "echo \"$(date; x)\" && bin/x",
        "a | b",
        "a & b",
        "x > y 2>&1",
        "(a; b)",
        "a \\; b",
        "`x`",
        " && ",
    ])
}

//! `berth-fuzz [--iterations N] [--seed S] [TARGET…]`: a long run of some or all targets, on any compiler. Ends with 1 at the first
//! finding, which it writes to `fuzz/artifacts/TARGET`; that file as the only argument after `--replay TARGET` feeds it again.

#![allow(clippy::print_stderr, reason = "it is a program for people")]

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_fuzz_targets::{all, feed, run};

fn main() -> ExitCode {
    let (mut iterations, mut seed, mut names) = (100_000, 1, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse().ok());
        match word.as_str() {
            "--iterations" => iterations = number().unwrap_or(iterations),
            "--seed" => seed = number().unwrap_or(seed),
            "--replay" => {
                let (name, file) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                return match fs::read(&file) {
                    Ok(input) => {
                        feed(&name, &input);
                        ExitCode::SUCCESS
                    }
                    Err(error) => misused(&format!("{file}: {error}")),
                };
            }
            name if all().iter().any(|target| target.name == name) => names.push(name.to_owned()),
            other => return misused(&format!("{other:?} is no option and no target")),
        }
    }
    for target in all().into_iter().filter(|t| names.is_empty() || names.iter().any(|name| name == t.name)) {
        let begin = Instant::now();
        if let Err(finding) = run(&target, iterations, seed, Duration::MAX) {
            let path = format!("{}/../artifacts/{}", env!("CARGO_MANIFEST_DIR"), target.name);
            let kept = fs::create_dir_all(format!("{}/../artifacts", env!("CARGO_MANIFEST_DIR")))
                .and_then(|()| fs::write(&path, &finding.input));
            eprintln!(
                "{}: {} ({path}: {kept:?})\n{:?}",
                target.name,
                finding.said,
                String::from_utf8_lossy(&finding.input)
            );
            return ExitCode::FAILURE;
        }
        eprintln!("{:16} {iterations} inputs in {:.1} s", target.name, begin.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}

fn misused(sentence: &str) -> ExitCode {
    let names: Vec<&str> = all().iter().map(|target| target.name).collect();
    eprintln!("berth-fuzz: {sentence}; the targets are {}", names.join(" "));
    ExitCode::from(2)
}

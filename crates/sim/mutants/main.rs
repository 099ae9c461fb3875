//! The test of the tester: puts bugs into a copy of the program, one at a time, and counts the seeds until the simulator
//! finds each.
//!
//! The bugs are in `table.txt`, those that need several partitions with how many. The copy lies under `target/mutants` and is
//! built there, without the optimizations that take long. A bug is found when a run ends in a violation or an assertion; how,
//! is printed behind the number of its seed. The last line counts those that were not found: each is a hole in the load or in
//! a checker, or no bug.

#![allow(clippy::unwrap_used)] // A test, with nobody to hand an error to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const TABLE: &str = include_str!("table.txt");
const USAGE: &str =
    "cargo run --release -p quorate-sim --bin mutants [--only NAME,NAME...] [--seeds N] [--seconds N]";

#[derive(Default)]
struct Mutant {
    name: String,
    what: String,
    file: String,
    /// As the simulation's option: 0 is for the seed to say.
    partitions: String,
    old: String,
    new: String,
}

fn table() -> Vec<Mutant> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let Some((field, text)) = line.split_once(": ") else { continue };
        let text = text.replace("\\n", "\n");
        if field == "name" {
            mutants.push(Mutant { name: text, partitions: "1".into(), ..Mutant::default() });
            continue;
        }
        let mutant = mutants.last_mut().unwrap_or_else(|| panic!("a mutant begins with its name: {line}"));
        match field {
            "what" => mutant.what = text,
            "file" => mutant.file = text,
            "partitions" => mutant.partitions = text,
            "old" => mutant.old = text,
            "new" => mutant.new = text,
            _ => panic!("not a field: {line}"),
        }
    }
    mutants
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (source, name) = (entry.path(), entry.file_name());
        if source.is_dir() {
            if name != "target" && name != ".git" {
                copy(&source, &to.join(name));
            }
        } else {
            fs::copy(source, to.join(name)).unwrap();
        }
    }
}

fn build(work: &Path, target: &Path) -> Result<(), String> {
    let output = Command::new("cargo")
        .args(["build", "--release", "-q", "--offline", "-p", "quorate-sim", "--bin", "quorate-sim"])
        .current_dir(work)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_INCREMENTAL", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .output()
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// What the simulator says of the program: the first thing wrong, if there is one.
fn hunt(target: &Path, mutant: &Mutant, seeds: &str, limit: Duration) -> String {
    let said = target.join("said.txt");
    let log = fs::File::create(&said).unwrap();
    let mut run = Command::new(target.join("release/quorate-sim"))
        .args(["--seeds", seeds, "--partitions", &mutant.partitions])
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        match run.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if begun.elapsed() > limit => {
                run.kill().unwrap();
                run.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let said = fs::read_to_string(said).unwrap();
    let clipped = |line: &str| line.chars().take(150).collect::<String>();
    let seed = said.lines().find(|line| line.starts_with("seed "));
    match status {
        Some(status) if status.success() => format!("NOT FOUND in {seeds} seeds"),
        Some(_) => seed.map_or("ended without a word".into(), clipped),
        None => {
            let done = said.lines().rev().find(|line| line.ends_with(" seeds")).unwrap_or("0 seeds");
            format!("NOT FOUND in {} s, {done}", limit.as_secs())
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    if arguments.iter().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let (only, seeds) = (value("--only"), value("--seeds").unwrap_or("2000".into()));
    let limit = Duration::from_secs(value("--seconds").and_then(|text| text.parse().ok()).unwrap_or(90));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let base =
        std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from).join("mutants");
    let (work, target) = (base.join("work"), base.join("build"));
    if work.exists() {
        fs::remove_dir_all(&work).unwrap();
    }
    copy(&root, &work);
    let mut missed = Vec::new();
    let mutants = table();
    let is_meant =
        |mutant: &&Mutant| only.as_ref().is_none_or(|only| only.split(',').any(|only| mutant.name == only));
    for mutant in mutants.iter().filter(is_meant) {
        let file = work.join(&mutant.file);
        let text = fs::read_to_string(&file).unwrap();
        let outcome = match text.matches(&mutant.old).count() {
            1 => {
                fs::write(&file, text.replacen(&mutant.old, &mutant.new, 1)).unwrap();
                let outcome = build(&work, &target).map(|()| hunt(&target, mutant, &seeds, limit));
                fs::write(&file, &text).unwrap();
                outcome.unwrap_or_else(|error| format!("DOES NOT BUILD: {error}"))
            }
            count => format!("DOES NOT APPLY: the old text stands {count} times in {}", mutant.file),
        };
        println!("| {} | {} | {} | {outcome} |", mutant.name, mutant.partitions, mutant.what);
        if !outcome.starts_with("seed") {
            missed.push(&mutant.name);
        }
    }
    println!("not found: {missed:?}");
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of the program must take its mutants along, or they would silently test nothing.
    #[test]
    fn every_mutant_applies_to_the_program_as_it_is() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for mutant in table() {
            let text = fs::read_to_string(root.join(&mutant.file)).unwrap();
            let count = text.matches(&mutant.old).count();
            assert_eq!(count, 1, "{}: «{}» in {}", mutant.name, mutant.old, mutant.file);
            assert_ne!(mutant.old, mutant.new, "{}", mutant.name);
            assert!(mutant.what.len() > 10, "{} says what it breaks", mutant.name);
        }
    }
}

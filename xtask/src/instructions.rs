//! Guards what the hot paths take, in instructions: the same on a busy machine as on a quiet one.
//!
//! The driver (`examples/hot_paths.rs` in `crates/node`) is run with fewer and with more operations; the difference is theirs, without the program's start. Counted
//! is by valgrind (cachegrind) where there is one, else by `perf stat`. The counts of the last commit that meant to change them are in
//! `xtask/instructions.txt`.
//!
//! Caveat: another compiler, or other versions of dependencies, count differently; that is why the file says which compiler it was. And an instruction is not a
//! nanosecond.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const PATHS: [&str; 6] = ["put", "put-many", "cas-many", "get", "get-many", "range"];
/// Operations of the two runs.
const FEWER: u64 = 512;
const MORE: u64 = 2_560;
/// Percent by which a count may be off.
const TOLERANCE: f64 = 3.0;
const FILE: &str = "instructions.txt";

const USAGE: &str =
    "instructions takes --save, to write down what is counted now, --tolerance PERCENT (3), or nothing";

/// What counts instructions here.
#[derive(Clone, Copy)]
enum Counter {
    Valgrind,
    Perf,
}

impl Counter {
    /// The first that works. Many virtual machines do not count for `perf`.
    fn find() -> Result<Self, String> {
        let works =
            [Counter::Valgrind, Counter::Perf].into_iter().find(|counter| counter.count(&["true"]).is_ok());
        works.ok_or_else(|| {
            "nothing counts instructions here: neither valgrind nor `perf stat` works".to_owned()
        })
    }

    fn count(self, program: &[&str]) -> Result<u64, String> {
        let words: &[&str] = match self {
            Counter::Valgrind => {
                &["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
            }
            Counter::Perf => &["perf", "stat", "-x,", "-e", "instructions:u"],
        };
        let output = Command::new(words[0]).args(&words[1..]).args(program).output();
        let output = output.map_err(|error| format!("cannot run {}: {error}", words[0]))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("{}: {}: {said}", program.join(" "), output.status));
        }
        let count = match self {
            Counter::Valgrind => refs(&said),
            Counter::Perf => said.lines().find_map(|line| line.split(',').next()?.parse().ok()),
        };
        count.ok_or_else(|| format!("{} does not say how many instructions: {said}", words[0]))
    }
}

/// Of cachegrind's `==1== I   refs:      1,234,567`.
fn refs(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("refs:") && line.contains(" I "))?;
    line.split("refs:").nth(1)?.trim().replace(',', "").parse().ok()
}

/// Counts, and compares with what was saved or saves it.
pub(crate) fn run(arguments: &[&str], target: &str) -> Result<(), String> {
    let (is_saving, tolerance) = match arguments {
        [] => (false, TOLERANCE),
        ["--save"] => (true, TOLERANCE),
        ["--tolerance", percent] => (false, percent.parse().map_err(|_| USAGE.to_owned())?),
        _ => return Err(USAGE.to_owned()),
    };
    let counter = Counter::find()?;
    super::run(&["cargo", "build", "--release", "--locked", "-p", "quorate-node", "--example", "hot_paths"])?;
    let driver = format!("{target}/release/examples/hot_paths");
    let mut counts = BTreeMap::new();
    for path in PATHS {
        let of = |operations: u64| counter.count(&[&driver, path, &operations.to_string()]);
        let difference = of(MORE)?.saturating_sub(of(FEWER)?);
        counts.insert(path.to_owned(), difference / (MORE - FEWER));
    }
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let compiler = compiler()?;
    if is_saving {
        for (path, count) in &counts {
            println!("{path:<10} {count:>9}");
        }
        return std::fs::write(&file, written(&compiler, &counts))
            .map_err(|error| format!("{}: {error}", file.display()));
    }
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    if !text.contains(&compiler) {
        println!("the saved counts are another compiler's: this is {compiler}");
    }
    let mut wrong = Vec::new();
    for (path, change) in changes(&read(&text), &counts) {
        let (now, saved) = (counts[&path], change.map_or("-".to_owned(), |change| format!("{change:+.1} %")));
        let is_wrong = change.is_none_or(|change| change.abs() > tolerance);
        println!("{path:<10} {now:>9} instructions  {saved:>8}{}", if is_wrong { "  <<" } else { "" });
        if is_wrong {
            wrong.push(path);
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "not within {tolerance} % of what was saved: {}; if that is meant: cargo xtask instructions --save",
        wrong.join(", ")
    ))
}

/// By how many percent each count has changed; `None` if nothing was saved of it.
fn changes(saved: &BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) -> Vec<(String, Option<f64>)> {
    let change = |(path, count): (&String, &u64)| {
        let saved = saved.get(path).filter(|saved| **saved > 0);
        (path.clone(), saved.map(|saved| (*count as f64 / *saved as f64 - 1.0) * 100.0))
    };
    counts.iter().map(change).collect()
}

fn written(compiler: &str, counts: &BTreeMap<String, u64>) -> String {
    let mut text = format!(
        "# Instructions that an operation takes on three hosts together, by path: `cargo xtask instructions --save`.\n# {compiler}\n"
    );
    for (path, count) in counts {
        text.push_str(&format!("{path} {count}\n"));
    }
    text
}

fn read(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (path, count) = line.split_once(' ')?;
        Some((path.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect()
}

fn compiler() -> Result<String, String> {
    let output = Command::new("rustc").arg("--version").output();
    let output = output.map_err(|error| format!("cannot run rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let counts: BTreeMap<String, u64> = [("get".to_owned(), 5), ("put".to_owned(), 1_234)].into();
        assert_eq!(read(&written("rustc 1", &counts)), counts);
    }

    #[test]
    fn changes_are_percent_and_new_paths_have_none() {
        let saved = [("put".to_owned(), 1_000)].into();
        let counts = [("put".to_owned(), 1_050), ("get".to_owned(), 7)].into();
        let changes = changes(&saved, &counts);
        assert_eq!(changes[0], ("get".to_owned(), None));
        assert!((changes[1].1.unwrap() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn valgrinds_count_is_found() {
        assert_eq!(refs("==7== \n==7== I   refs:      1,234,567\n"), Some(1_234_567));
        assert_eq!(refs("==7== D   refs: 1\n"), None);
    }
}

//! Guards what the hot paths take, in instructions and in allocations of memory: the same on a busy machine as on a quiet one.
//!
//! The driver (`examples/hot_paths.rs` in `crates/node`) is run with fewer and with more operations; the difference is theirs, without the program's start. Counted
//! is by valgrind (cachegrind; dhat for allocations) where there is one, else by `perf stat`, which knows of no allocations. The counts of the last commit that meant to change them are in
//! `xtask/instructions.txt`.
//!
//! Caveat: another compiler, or other versions of dependencies, count differently; that is why the file says which compiler it was. And an instruction is not a
//! nanosecond.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Operations of the two runs.
const FEWER: u64 = 512;
const MORE: u64 = 2_560;
/// Percent by which a count may be off.
const TOLERANCE: f64 = 3.0;
const FILE: &str = "instructions.txt";

const USAGE: &str =
    "instructions takes --save, to write down what is counted now, --tolerance PERCENT (3), or nothing";

/// What an operation takes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    instructions: u64,
    /// `None` where nothing counts them.
    allocations: Option<f64>,
}

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
        let said = said_by(words, program)?;
        let count = match self {
            Counter::Valgrind => refs(&said),
            Counter::Perf => said.lines().find_map(|line| line.split(',').next()?.parse().ok()),
        };
        count.ok_or_else(|| format!("{} does not say how many instructions: {said}", words[0]))
    }

    fn allocations(self, program: &[&str]) -> Result<Option<u64>, String> {
        let Counter::Valgrind = self else { return Ok(None) };
        let said = said_by(&["valgrind", "--tool=dhat", "--dhat-out-file=/dev/null"], program)?;
        let count = blocks(&said);
        count.map(Some).ok_or_else(|| format!("valgrind does not say how many allocations: {said}"))
    }
}

/// The ways that the driver knows, a line each.
fn paths(driver: &str) -> Result<String, String> {
    let output = Command::new(driver).output().map_err(|error| format!("cannot run {driver}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a counter says of a program that ends well.
fn said_by(words: &[&str], program: &[&str]) -> Result<String, String> {
    let output = Command::new(words[0]).args(&words[1..]).args(program).output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", words[0]))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("{}: {}: {said}", program.join(" "), output.status))
    }
}

/// Of dhat's `==1== Total:     8,268 bytes in 31 blocks`.
fn blocks(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Total:") && line.contains(" blocks"))?;
    line.split(" bytes in ").nth(1)?.split(' ').next()?.replace(',', "").parse().ok()
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
    for path in paths(&driver)?.lines() {
        let (more, fewer) = (MORE.to_string(), FEWER.to_string());
        let [more, fewer] = [[driver.as_str(), path, &more], [driver.as_str(), path, &fewer]];
        let instructions = counter.count(&more)?.saturating_sub(counter.count(&fewer)?) / (MORE - FEWER);
        let allocations = match (counter.allocations(&more)?, counter.allocations(&fewer)?) {
            (Some(more), Some(fewer)) => Some(more.saturating_sub(fewer) as f64 / (MORE - FEWER) as f64),
            _ => None,
        };
        counts.insert(path.to_owned(), Cost { instructions, allocations });
    }
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let compiler = compiler()?;
    if is_saving {
        print!("{}", written(&compiler, &counts));
        return std::fs::write(&file, written(&compiler, &counts))
            .map_err(|error| format!("{}: {error}", file.display()));
    }
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    if !text.contains(&compiler) {
        println!("the saved counts are another compiler's: this is {compiler}");
    }
    let (saved, mut wrong) = (read(&text), Vec::new());
    for (path, now) in &counts {
        let then = saved.get(path);
        let instructions = then.map(|then| percent(then.instructions as f64, now.instructions as f64));
        let allocations = then.and_then(|then| Some(percent(then.allocations?, now.allocations?)));
        let is_off = |change: Option<f64>| change.is_none_or(|change| change.abs() > tolerance);
        let is_wrong = is_off(instructions) || (now.allocations.is_some() && is_off(allocations));
        println!(
            "{path:<14} {:>9} instructions {:>8}  {:>8} allocations {:>8}{}",
            now.instructions,
            said(instructions),
            now.allocations.map_or("-".to_owned(), |count| format!("{count:.1}")),
            said(allocations),
            if is_wrong { "  <<" } else { "" }
        );
        if is_wrong {
            wrong.push(path.as_str());
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

/// By how many percent a count has changed.
fn percent(then: f64, now: f64) -> f64 {
    (now / then.max(f64::MIN_POSITIVE) - 1.0) * 100.0
}

fn said(change: Option<f64>) -> String {
    change.map_or("new".to_owned(), |change| format!("{change:+.1} %"))
}

fn written(compiler: &str, counts: &BTreeMap<String, Cost>) -> String {
    let mut text = format!(
        "# Instructions and allocations that an operation takes on three hosts together, by path: `cargo xtask instructions --save`.\n# {compiler}\n"
    );
    for (path, Cost { instructions, allocations }) in counts {
        let allocations = allocations.map_or(String::new(), |count| format!(" {count:.1}"));
        text.push_str(&format!("{path} {instructions}{allocations}\n"));
    }
    text
}

fn read(text: &str) -> BTreeMap<String, Cost> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (path, instructions) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let allocations = words.next().and_then(|word| word.parse().ok());
        Some((path, Cost { instructions, allocations }))
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
        let cost = |instructions, allocations| Cost { instructions, allocations };
        let counts = [("get".to_owned(), cost(5, None)), ("put".to_owned(), cost(1_234, Some(12.5)))].into();
        assert_eq!(read(&written("rustc 1", &counts)), counts);
    }

    #[test]
    fn changes_are_percent() {
        assert!((percent(1_000.0, 1_050.0) - 5.0).abs() < 1e-9);
        assert_eq!(said(Some(-2.0)), "-2.0 %");
        assert_eq!(said(None), "new");
    }

    #[test]
    fn valgrinds_count_is_found() {
        assert_eq!(refs("==7== \n==7== I   refs:      1,234,567\n"), Some(1_234_567));
        assert_eq!(refs("==7== D   refs: 1\n"), None);
        assert_eq!(blocks("==7== \n==7== Total:     36,387,145 bytes in 175,373 blocks\n"), Some(175_373));
        assert_eq!(blocks("==7== At t-end: 1\n"), None);
    }
}

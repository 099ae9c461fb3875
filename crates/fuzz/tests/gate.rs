//! What the gate executes: every kept input, good inputs, and some mutations of them, always the same ones.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_fuzz::campaign::{Campaign, Failure};
use quorate_fuzz::execute::{Executor, Outcome, Saving, how_to_replay};
use quorate_fuzz::targets::{TARGETS, Target};
use quorate_fuzz::{corpus, memory};
use std::path::{Path, PathBuf};

fn executor() -> Executor {
    Executor::new(Saving { folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz"), is_each: false })
}

/// Fuzzes every second target from this one on, so that two threads share them.
fn fuzz(of: usize) {
    let executor = executor();
    let mut problems = Vec::new();
    for target in TARGETS.iter().skip(of).step_by(2) {
        let mut campaign = Campaign::new(target, &executor, 1).unwrap();
        if let Err(Failure { input, what }) = campaign.begin().and_then(|()| campaign.go_on(target.gate)) {
            let path = executor.save(target, &input);
            problems.push(format!("{}: {what}\n{}", target.name, how_to_replay(target.name, &path)));
            continue;
        }
        // If next to nothing is accepted, only the first bytes are fuzzed.
        let done = campaign.done;
        assert!(done.accepted * 100 > done.executions, "{}: {done:?}", target.name);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn nothing_is_wrong_with_one_half_of_the_readers() {
    fuzz(0);
}

#[test]
fn nothing_is_wrong_with_the_other_half() {
    fuzz(1);
}

#[test]
fn kept_inputs_are_of_targets_that_there_are() {
    for entry in std::fs::read_dir(corpus::folder("")).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(TARGETS.iter().any(|target| *target.name == *name), "{name:?}");
    }
}

#[test]
fn the_document_names_every_target() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fuzzing.md");
    let document = std::fs::read_to_string(document).unwrap();
    for target in TARGETS {
        assert!(document.contains(&format!("| `{}` | {} |", target.name, target.what)), "{}", target.name);
    }
}

fn planted(run: fn(&[u8]) -> bool) -> Target {
    let seed = |_: &mut _| b"a good one".to_vec();
    Target { name: "planted", what: "a mistake", seed, mend: |_| {}, run, gate: 0 }
}

fn failure(target: &Target) -> Failure {
    let executor = executor();
    let mut campaign = Campaign::new(target, &executor, 1).unwrap();
    campaign.begin().and_then(|()| campaign.go_on(100_000)).unwrap_err()
}

#[test]
fn a_panic_is_found_and_its_input_made_small() {
    let found = failure(&planted(|bytes| {
        assert!(!bytes.contains(&0xee), "a bad byte");
        true
    }));
    assert!(found.what.contains("a bad byte"), "{}", found.what);
    assert_eq!(found.input, [0xee]);
}

#[test]
fn a_length_that_is_believed_is_found() {
    let found = failure(&planted(|bytes| {
        let Some(length) = bytes.get(1).filter(|_| bytes[0] == 0) else { return true };
        Vec::<u8>::with_capacity(usize::from(*length) << 20).is_empty()
    }));
    assert!(found.what.contains("bytes of memory in use"), "{}", found.what);
    assert!(usize::from(found.input[1]) << 20 > memory::SPARE_BYTES, "{:?}", found.input);
}

#[test]
fn a_good_input_that_is_refused_is_a_mistake_of_the_target() {
    assert_eq!(failure(&planted(|_| false)).what, "a good input is refused");
}

#[test]
fn the_same_seed_gives_the_same_executions() {
    let target = TARGETS.iter().find(|target| target.name == "peer-message").unwrap();
    let executor = executor();
    let done = |seed| {
        let mut campaign = Campaign::new(target, &executor, seed).unwrap();
        campaign.begin().and_then(|()| campaign.go_on(500)).unwrap();
        campaign.done
    };
    assert_eq!(done(1), done(1));
    assert_ne!(done(1), done(2));
}

#[test]
fn what_is_saved_is_what_was_executed() {
    let executor = executor();
    let target = planted(|_| true);
    assert_eq!(executor.run(&target, b"this"), Outcome::Accepted);
    let path: PathBuf = executor.save(&target, b"this");
    assert_eq!(std::fs::read(path).unwrap(), b"this");
}

//! The crate arrows and the purity that the compiler does not see.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What each crate may use of ours. A new arrow is a decision: change ARCHITECTURE.md with it.
fn arrows() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("types", vec![]),
        ("consensus", vec!["types"]),
        ("placement", vec!["types"]),
        ("mvcc", vec!["types"]),
        ("storage", vec!["types", "consensus", "mvcc"]),
        ("partition", vec!["types", "mvcc"]),
        ("node", vec!["types", "consensus", "placement", "mvcc", "partition"]),
        ("api", vec!["types"]),
        ("checker", vec!["types"]),
        ("sim", vec!["types", "consensus", "checker", "mvcc", "storage", "partition", "node"]),
        ("load", vec!["api"]),
        ("bench", vec!["types", "api", "load"]),
        ("faultfs", vec!["consensus"]),
        ("fuzz", vec!["types", "consensus", "mvcc", "storage", "partition", "node", "api"]),
        (
            "server",
            vec![
                "types",
                "consensus",
                "checker",
                "placement",
                "mvcc",
                "storage",
                "partition",
                "node",
                "api",
                "faultfs",
                "load",
            ],
        ),
    ])
}

const PURE: [&str; 9] =
    ["types", "consensus", "placement", "mvcc", "storage", "partition", "node", "checker", "sim"];
/// What a pure crate may use from outside: data structures and checksums.
const PURE_MAY_USE: [&str; 4] = ["bytes", "crc32c", "smallvec", "twox-hash"];
/// What must not be said in a pure crate, and what to do instead.
const BANNED: [(&str, &str); 7] = [
    ("std::time", "count ticks that the shell hands in"),
    ("std::thread", "return effects and let the shell have threads"),
    ("std::net", "return effects and let the shell have sockets"),
    ("async fn", "be a synchronous state machine"),
    ("HashMap", "use BTreeMap: its order is the same in every run"),
    ("HashSet", "use BTreeSet: its order is the same in every run"),
    ("thread_rng", "take a seeded generator"),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names under `[dependencies]` of a crate's manifest, and under those that are for some systems only.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
    let is_meant = |header: &str| {
        header == "dependencies]" || header.starts_with("target.") && header.ends_with(".dependencies]")
    };
    let sections = manifest.split("\n[").filter_map(|section| section.split_once('\n'));
    let meant = sections.filter(|(header, _)| is_meant(header));
    let lines = meant.flat_map(|(_, lines)| lines.lines());
    let names = lines.filter_map(|line| line.split(['=', '.', ' ']).next());
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn crates_point_one_way() {
    let arrows = arrows();
    for entry in std::fs::read_dir(root().join("crates")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let allowed = arrows.get(name.as_str());
        let allowed =
            allowed.unwrap_or_else(|| panic!("crate {name} has no place in the arrows; give it one here"));
        for dependency in dependencies(&name) {
            if let Some(ours) = dependency.strip_prefix("quorate-") {
                assert!(allowed.contains(&ours), "{name} must not use {ours}: see ARCHITECTURE.md");
            } else if PURE.contains(&name.as_str()) {
                let is_allowed = PURE_MAY_USE.contains(&dependency.as_str());
                assert!(is_allowed, "{name} is pure and must not use {dependency}: do it in the server");
            }
        }
    }
}

#[test]
fn pure_crates_touch_nothing_of_the_world() {
    for name in PURE {
        let mut files = Vec::new();
        sources(&root().join("crates").join(name).join("src"), &mut files);
        assert!(!files.is_empty(), "crate {name} has no sources");
        for file in files {
            if file.ends_with("main.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            for (at, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or("");
                for (word, instead) in BANNED {
                    assert!(!code.contains(word), "{}:{}: {word}: {instead}", file.display(), at + 1);
                }
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    sources(&root().join("xtask"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with what it is for (//! ...)", file.display());
    }
}

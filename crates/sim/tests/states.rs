//! What the program names and what the table says are the same names, each once.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_sim::states::table::TABLE;
use std::collections::BTreeSet;
use std::path::Path;

/// The names in the sources below a directory.
fn probes(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            probes(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("probe.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let after = text.split("reached!(").skip(1);
            let names = after.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_state_is_in_the_table_and_in_one_place_of_the_program() {
    let mut found = Vec::new();
    for krate in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap().flatten() {
        let sources = krate.path().join("src");
        if sources.is_dir() {
            probes(&sources, &mut found);
        }
    }
    found.sort();
    let twice: Vec<_> = found.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "named in two places: {twice:?}");
    let rows = TABLE.iter().flat_map(|(_, rows)| rows.iter());
    let mut listed: Vec<String> = rows.clone().map(|(name, ..)| (*name).to_owned()).collect();
    listed.sort();
    let (in_program, in_table): (BTreeSet<_>, BTreeSet<_>) =
        (found.iter().collect(), listed.iter().collect());
    assert_eq!(in_program.len(), found.len());
    assert_eq!(in_table.len(), listed.len(), "a name stands in the table twice");
    let unknown: Vec<_> = in_program.difference(&in_table).collect();
    let nowhere: Vec<_> = in_table.difference(&in_program).collect();
    assert!(
        unknown.is_empty() && nowhere.is_empty(),
        "not in the table: {unknown:?}; nowhere in the program: {nowhere:?}"
    );
    assert!(rows.clone().all(|(.., what)| what.len() > 10), "a row says what its state is");
}

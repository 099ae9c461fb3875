//! Every file of a store is damaged, one byte at a time: what is read is what was written, or the damage is told as what it is. Never something else, never a panic.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate::engine::DiskEngine;
use quorate_consensus::random::Random;
use quorate_mvcc::engine::{Batch, Engine, Read, Table};
use quorate_mvcc::layout;
use quorate_types::{Bytes, Fault};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

const CACHE_BYTES: u64 = 1 << 20;
const ROWS: u32 = 600;
/// Damage in each file; `QUORATE_ROT_PLACES` says otherwise.
const PLACES: u64 = 24;

type Rows = BTreeMap<(u8, Bytes), Bytes>;

fn fill(engine: &DiskEngine, from: u32, to: u32) {
    let mut random = Random::new(u64::from(from));
    for row in from..to {
        let mut batch = Batch::default();
        for table in Table::ALL {
            let key = Bytes::from(row.to_be_bytes().to_vec());
            let value = (0..random.between(0, 600)).map(|_| random.between(0, 256) as u8).collect();
            batch.put(table, key.clone(), layout::seal(table, &key, value));
        }
        engine.write(batch).unwrap();
    }
    engine.flush().unwrap();
}

/// All rows, as everything in the program reads them: with their seals.
fn read(path: &Path) -> Result<Rows, Fault> {
    let engine = DiskEngine::open(path, CACHE_BYTES)?;
    let mut rows = Rows::new();
    for table in Table::ALL {
        for row in engine.scan(table, (Bound::Unbounded, Bound::Unbounded)) {
            let (key, value) = row?;
            rows.insert((table as u8, key.clone()), layout::open(table, &key, value)?);
        }
    }
    Ok(rows)
}

fn files(path: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { assert!(std::fs::copy(&path, target).is_ok()) }
    }
}

/// What a process of its own makes of a store: one whose file says that it needs all memory there is takes its process with it.
const STORE: &str = "QUORATE_TEST_STORE";

/// Where the child writes what it read, or the damage that it met.
fn child_reads(path: &str) {
    let told = match read(Path::new(path)) {
        Ok(rows) => {
            let mut bytes = b"rows".to_vec();
            for ((table, key), value) in rows {
                bytes.push(table);
                for part in [key, value] {
                    bytes.extend((part.len() as u32).to_be_bytes());
                    bytes.extend(part);
                }
            }
            bytes
        }
        Err(fault) if fault.is_damage() => format!("damage: {fault}").into_bytes(),
        // It may be of another version, and is not touched.
        Err(fault) if fault.to_string().contains("InvalidVersion(Some") => b"damage".to_vec(),
        Err(fault) => format!("other: {fault}").into_bytes(),
    };
    std::fs::write(format!("{path}.told"), told).unwrap();
}

enum Outcome {
    Rows(Rows),
    Damage,
    Problem(String),
}

fn outcome(path: &Path) -> Outcome {
    let told = PathBuf::from(format!("{}.told", path.display()));
    let _ = std::fs::remove_file(&told);
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_damaged_byte_is_told_or_does_not_matter"]).env(STORE, path);
    let said = child.output().unwrap();
    let Ok(told) = std::fs::read(told) else {
        let words = String::from_utf8_lossy(&said.stderr);
        return Outcome::Problem(format!(
            "{}: {}",
            said.status,
            words.lines().take(3).collect::<Vec<_>>().join("; ")
        ));
    };
    let Some(mut rest) = told.strip_prefix(b"rows".as_slice()) else {
        let words = String::from_utf8_lossy(&told);
        return if words.starts_with("damage") { Outcome::Damage } else { Outcome::Problem(words.into()) };
    };
    let mut rows = Rows::new();
    let part = |rest: &mut &[u8]| {
        let (length, after) = rest.split_at(4);
        let (part, after) = after.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize);
        *rest = after;
        Bytes::copy_from_slice(part)
    };
    while let Some((table, after)) = rest.split_first() {
        rest = after;
        let (key, value) = (part(&mut rest), part(&mut rest));
        rows.insert((*table, key), value);
    }
    Outcome::Rows(rows)
}

#[test]
fn a_damaged_byte_is_told_or_does_not_matter() {
    if let Ok(path) = std::env::var(STORE) {
        return child_reads(&path);
    }
    let folder = tempfile::tempdir().unwrap();
    let (whole, damaged) = (folder.path().join("whole"), folder.path().join("damaged"));
    {
        let engine = DiskEngine::open(&whole, CACHE_BYTES).unwrap();
        fill(&engine, 0, ROWS / 2);
        // In files of their own.
        engine.reclaim().unwrap();
        fill(&engine, ROWS / 2, ROWS);
    }
    let Outcome::Rows(expected) = outcome(&whole) else { panic!("it is whole") };
    assert_eq!(expected.len(), 3 * ROWS as usize);
    let mut random = Random::new(99);
    let (mut told, mut harmless) = (0, 0);
    let mut problems = Vec::new();
    let places = std::env::var("QUORATE_ROT_PLACES").map_or(PLACES, |places| places.parse().unwrap());
    for file in files(&whole) {
        let name = file.strip_prefix(&whole).unwrap().to_owned();
        let bytes = std::fs::read(&file).unwrap();
        // Journals are made larger than what is in them.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        if used == 0 {
            continue;
        }
        for _ in 0..places {
            let at = random.between(0, used) as usize;
            let _ = std::fs::remove_dir_all(&damaged);
            copy(&whole, &damaged);
            let mut changed = bytes.clone();
            changed[at] ^= 1 << random.between(0, 8);
            std::fs::write(damaged.join(&name), changed).unwrap();
            let place = format!("{} byte {at} of {used}", name.display());
            match outcome(&damaged) {
                Outcome::Damage => told += 1,
                Outcome::Problem(problem) => problems.push(format!("{place}: {problem}")),
                Outcome::Rows(rows) if rows == expected => harmless += 1,
                Outcome::Rows(rows) => {
                    problems.push(format!("{place}: {} rows, not {}", rows.len(), expected.len()))
                }
            }
        }
    }
    println!("{told} told, {harmless} harmless");
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(told > 50);
}

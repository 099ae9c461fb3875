//! doctor: checks a stopped node's files and says what it found.

use super::{Output, keyspace};
use crate::data_dir;
use crate::disk::FileDisk;
use crate::engine::DiskEngine;
use crate::events::journal::Journal;
use crate::events::{Kind, Record};
use crate::repair;
use quorate_mvcc::engine::{Read, Table};
use quorate_mvcc::layout;
use quorate_partition::{Limits, Opened, Partition, Publication};
use quorate_storage::wal;
use quorate_types::{GroupId, SlotSet};
use serde_json::json;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;

/// Of a journal that is opened for one line only: more than any has, so that nothing is thrown away.
const JOURNAL_BYTES: u64 = 1 << 40;

/// Reads every byte of a data directory that no process uses. Returns whether all is well.
pub fn doctor(path: &Path, output: Output) -> Result<bool, String> {
    if !path.join("IDENTITY").exists() {
        return Err(format!("{} is not a data directory: it has no IDENTITY file", path.display()));
    }
    let _lock = data_dir::lock(path).map_err(|error| error.to_string())?;
    let (owner, incarnation) = data_dir::read_identity(path).map_err(|error| error.to_string())?;
    let standing = data_dir::read_standing(path).map_err(|error| error.to_string())?;
    let mut findings = Vec::new();
    let mut lines = vec![format!("data of {owner}, directory {incarnation}")];
    if standing == quorate_node::Standing::New {
        lines.push("the node has not been admitted to the cluster yet: it has no vote".to_owned());
    }
    if data_dir::is_removed(path) {
        lines.push("the node was removed from the cluster: it does not start any more".to_owned());
    }

    let disk = FileDisk::open(&path.join("log")).map_err(|error| format!("the log's folder: {error}"))?;
    match wal::inspect(&disk, owner.log_identity()) {
        Ok(report) => {
            for segment in report.segments {
                lines.push(format!(
                    "log {}: {} frames in {} bytes",
                    segment.file, segment.frames, segment.bytes
                ));
                for (group, (first, last)) in segment.groups {
                    lines.push(format!("    group {group}: entries {first} to {last}"));
                }
                if let Some((offset, bytes)) = segment.torn {
                    lines.push(format!(
                        "    {bytes} bytes of an unfinished write at {offset}: harmless, the next start removes them"
                    ));
                }
            }
        }
        Err(error) => findings.push(format!("log: {error}")),
    }

    match DiskEngine::open(&path.join("store"), 8 << 20) {
        Ok(engine) => {
            let mut groups = BTreeSet::new();
            for table in Table::ALL {
                let mut rows = 0u64;
                for row in engine.scan(table, (Bound::Unbounded, Bound::Unbounded)) {
                    match row {
                        Ok((row, _)) => {
                            rows += 1;
                            if table == Table::State {
                                groups.extend(layout::split_state(&row));
                            }
                        }
                        Err(fault) => {
                            findings.push(format!("store, table {table:?} after {rows} rows: {fault}"));
                            break;
                        }
                    }
                }
                lines.push(format!("store {table:?}: {rows} rows"));
            }
            groups.retain(|group| group.partition != layout::EVERY_PARTITION);
            let groups: Vec<GroupId> = groups.into_iter().collect();
            for of_keyspace in groups.chunk_by(|a, b| a.keyspace == b.keyspace) {
                check_keyspace(&engine, of_keyspace, &mut lines, &mut findings);
            }
        }
        Err(fault) => findings.push(format!("store: {fault}")),
    }

    if output == Output::Json {
        println!("{}", json!({"data": lines, "damage": findings}));
    } else {
        for line in lines {
            println!("{line}");
        }
        for finding in &findings {
            println!("DAMAGE {finding}");
        }
        if findings.is_empty() {
            println!("nothing wrong");
        } else {
            let is_only_store = findings.iter().all(|finding| !finding.starts_with("log: "));
            if is_only_store && standing != quorate_node::Standing::New {
                println!(
                    "The log, with what this node has promised, is whole. If the cluster has other nodes that hold the same, run\nquorate doctor --rebuild-store {} and start the node: what the store held is fetched from them.",
                    path.display()
                );
                return Ok(false);
            }
            if !is_only_store && repair::can_be_filled(path).is_ok() {
                println!(
                    "Start the node while the others run: if its settings name others, and it has not done so three times today, it puts log and store aside, asks the others what it has promised,\nand fetches what it held. Else move this directory away and start the node with an empty one; keep the old one until it is filled."
                );
                return Ok(false);
            }
            println!(
                "Keep this node stopped: the others go on without it. If the cluster has other nodes, move this directory away and\nstart the node with an empty one: it is filled from them. Keep the old one until that is done."
            );
        }
    }
    Ok(findings.is_empty())
}

/// Puts the store of a stopped node aside, so that the next start fetches all that it held.
pub fn rebuild_store(path: &Path) -> Result<String, String> {
    if !path.join("IDENTITY").exists() {
        return Err(format!("{} is not a data directory: it has no IDENTITY file", path.display()));
    }
    let _lock = data_dir::lock(path).map_err(|error| error.to_string())?;
    if let Some(aside) = repair::aside(path).first() {
        return Err(format!("{} is there already: move it away first", aside.display()));
    }
    let (owner, _) = data_dir::read_identity(path).map_err(|error| error.to_string())?;
    let (aside, groups) = repair::put_aside(path)?;
    let what = format!("node {} is to fetch all that it held from the others", owner.node);
    let told = Record::new(
        now(),
        Kind::Process,
        what,
        "its store was put aside with quorate doctor --rebuild-store",
    );
    // For people; the node does without it.
    if let Err(error) =
        Journal::open(&path.join("events"), JOURNAL_BYTES).and_then(|(journal, _)| journal.append([told]))
    {
        eprintln!("not in the journal: {error}");
    }
    Ok(format!(
        "The store is put aside as {}. Start the node: {} are fetched from the others, and what was put aside is removed when that is done.",
        aside.display(),
        keyspace::counted(groups as u64, "group")
    ))
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Opens every partition of a keyspace and reads the history that they share.
fn check_keyspace(
    engine: &DiskEngine,
    groups: &[GroupId],
    lines: &mut Vec<String>,
    findings: &mut Vec<String>,
) {
    let publication = Publication::by_owner();
    let mut newest = None;
    let mut are_all_whole = true;
    for group in groups {
        let initial = SlotSet::all();
        match Partition::open_among(&publication, engine.clone(), *group, initial, Limits::default()) {
            Ok(Opened::Ready(partition)) => {
                let (applied, revision) = (partition.applied(), partition.revision());
                newest = newest.max(Some(revision));
                lines.push(format!("group {group}: applied {applied}, revision {revision}"));
            }
            Ok(Opened::Incomplete) => {
                are_all_whole = false;
                lines.push(format!(
                    "group {group}: a snapshot was being installed; the next start fetches it again"
                ));
            }
            Err(fault) => {
                are_all_whole = false;
                findings.push(format!("group {group}: {fault}"));
            }
        }
    }
    let (Some(newest), Some(first)) = (newest, groups.first()) else { return };
    if !are_all_whole {
        return;
    }
    publication.advance(newest);
    // Reading all history verifies the checksum of every row.
    match publication.reader(engine.clone(), first.keyspace).hash_kv(0) {
        Ok(hash) => lines.push(format!(
            "keyspace {}: {} partitions, revision {newest}, history hash {:08x}",
            first.keyspace,
            groups.len(),
            hash.hash
        )),
        Err(error) => findings.push(format!("keyspace {}: {error}", first.keyspace)),
    }
}

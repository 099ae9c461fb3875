//! doctor: checks a stopped node's files and says what it found.

use super::Output;
use crate::data_dir;
use crate::disk::FileDisk;
use crate::engine::FjallEngine;
use quorate_mvcc::engine::{Read, Table};
use quorate_partition::{Limits, Opened, Partition};
use quorate_storage::wal;
use quorate_types::{GroupId, SlotSet};
use serde_json::json;
use std::ops::Bound;
use std::path::Path;

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

    let disk = FileDisk::open(&path.join("log")).map_err(|error| format!("the log's folder: {error}"))?;
    match wal::inspect(&disk, owner.cluster.0 ^ owner.node.0.rotate_left(32)) {
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

    match FjallEngine::open(&path.join("store"), 8 << 20) {
        Ok(engine) => {
            for table in Table::ALL {
                let mut rows = 0u64;
                for row in engine.scan(table, (Bound::Unbounded, Bound::Unbounded)) {
                    match row {
                        Ok(_) => rows += 1,
                        Err(fault) => {
                            findings.push(format!("store, table {table:?} after {rows} rows: {fault}"));
                            break;
                        }
                    }
                }
                lines.push(format!("store {table:?}: {rows} rows"));
            }
            for group in [GroupId::META, GroupId::FIRST] {
                match Partition::open(engine.clone(), group, SlotSet::all(), Limits::default()) {
                    Ok(Opened::Ready(partition)) => {
                        // Reading all history verifies the checksum of every row.
                        match partition.reader().hash_kv(0) {
                            Ok(hash) => lines.push(format!(
                                "group {group}: applied {}, revision {}, history hash {:08x}",
                                partition.applied(),
                                partition.revision(),
                                hash.hash
                            )),
                            Err(error) => findings.push(format!("group {group}: {error}")),
                        }
                    }
                    Ok(Opened::Incomplete) => lines.push(format!(
                        "group {group}: a snapshot was being installed; the next start fetches it again"
                    )),
                    Err(fault) => findings.push(format!("group {group}: {fault}")),
                }
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
            println!(
                "Keep this node stopped: the others go on without it. If the cluster has other nodes, move this directory away and\nstart the node with an empty one: it is filled from them. Keep the old one until that is done."
            );
        }
    }
    Ok(findings.is_empty())
}

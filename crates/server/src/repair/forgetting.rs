//! A damaged log is given up.
//!
//! What a frame held, and of whom, cannot be told, so nothing of what this node has voted and acknowledged is sure. It is then like one that has lost its disk: it begins
//! a new life, in which nothing of the former counts, asks every other member, and votes again when it has caught up (`admission.rs` in `quorate-node`). The store alone
//! would be of no use to it: nobody can say what had been promised beyond it.
//!
//! Invariant: the order to forget stands until the new life is durable, so a start that is cut short does the rest the next time. Nothing is deleted.

use super::{CACHE_BYTES, LOG_ASIDE, STORE_ASIDE, free_name};
use crate::data_dir;
use crate::disk::FileDisk;
use crate::engine::DiskEngine;
use quorate_mvcc::engine::Engine;
use quorate_storage::wal::{self, OpenError};
use quorate_types::crash_point;
use std::path::Path;

/// Whether there is damage in the log, and not only an unfinished write at its end.
pub(super) fn is_log_damaged(path: &Path) -> Result<bool, String> {
    let (owner, _) = data_dir::read_identity(path).map_err(|error| error.to_string())?;
    let disk = FileDisk::open(&path.join("log")).map_err(|error| format!("the log's folder: {error}"))?;
    match wal::inspect(&disk, owner.log_identity()) {
        Ok(_) => Ok(false),
        Err(OpenError::Corrupt { .. }) => Ok(true),
        Err(error) => Err(error.to_string()),
    }
}

/// Puts log and store aside and begins a new life without them. The caller holds the directory.
pub(super) fn forget(path: &Path) -> Result<(), String> {
    for (part, stem) in [("log", LOG_ASIDE), ("store", STORE_ASIDE)] {
        let part = path.join(part);
        // Empty ones are of a start that was cut short.
        if part.exists() && std::fs::remove_dir(&part).is_err() {
            let aside = free_name(path, stem);
            std::fs::rename(&part, aside).map_err(|error| format!("{}: {error}", part.display()))?;
            crash_point("forget.part_aside");
        }
    }
    let new = path.join("store");
    let engine = DiskEngine::open(&new, CACHE_BYTES).map_err(|fault| fault.to_string())?;
    engine.flush().map_err(|fault| fault.to_string())?;
    crash_point("forget.store_made");
    data_dir::begin_new_life(path).map_err(|error| error.to_string())?;
    crash_point("forget.life_begun");
    Ok(())
}

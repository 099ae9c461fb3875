//! Space for data: writes are refused before it runs out, and taken again when there is some.
//!
//! Two bounds, looked at every second: what the store may take (`--quota-bytes`), and what must stay free on the data
//! directory's file system (`--disk-reserve-bytes`). Past either, this node as a leader refuses what needs space, as etcd does
//! under its NOSPACE alarm; reads, deletes, compaction and keep-alives go on, and the reserve is what they write into. While space is
//! short and rows have been removed, the tables are merged, so that deleting and compacting ends the shortage. Nobody has to defragment or
//! disarm anything.
//!
//! Caveats: while a majority has space, a follower that has none goes on until its reserve is used up, and then stops (`host/space.rs` in
//! `quorate-node`). A disk that others fill within a second runs out under us likewise. The other members go on.

use crate::config::Config;
use crate::engine::DiskEngine;
use crate::events::Told;
use crate::events::recorder::Recorder;
use crate::runtime::inbox::Sender;
use crate::runtime::worker::Input;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// How often space is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between two merges of all tables.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(5);

/// Whether there is space for writes.
#[derive(Clone, Default)]
pub struct Space {
    is_short: Arc<AtomicBool>,
}

impl Space {
    /// Whether writes are refused for want of space.
    pub fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// Looks at once, so that a node that starts on a full disk refuses writes from the beginning.
    pub fn look(&self, engine: &DiskEngine, config: &Config, worker: &Sender, recorder: &Recorder) -> bool {
        let shortage = shortage(engine, config);
        let is_short = shortage.is_some();
        if self.is_short.swap(is_short, Ordering::Relaxed) != is_short {
            match &shortage {
                Some(why) => warn!(why, "space is short: writes are refused until there is more"),
                None => info!("there is space again: writes are taken"),
            }
            recorder.tell(Told::Space(shortage));
            return worker.send(Input::NoSpace(is_short)).is_ok();
        }
        true
    }

    /// Looks every second until the worker is gone.
    pub async fn watch(self, engine: DiskEngine, config: Config, worker: Sender, recorder: Recorder) {
        let (mut removed, mut reclaimed) = (0, None::<Instant>);
        while self.look(&engine, &config, &worker, &recorder) {
            tokio::time::sleep(INTERVAL).await;
            let is_due = reclaimed.is_none_or(|at| at.elapsed() >= RECLAIM_INTERVAL);
            if self.is_short() && is_due && engine.removed() > removed {
                removed = engine.removed();
                reclaim(engine.clone()).await;
                reclaimed = Some(Instant::now());
            }
        }
    }
}

/// Gives the space of removed rows back. An error of the disk will meet the next write as well, which is where it counts.
pub async fn reclaim(engine: DiskEngine) {
    let before = engine.table_bytes();
    info!(bytes = before, "merging tables to give space back");
    let merged = engine.clone();
    match tokio::task::spawn_blocking(move || merged.reclaim()).await {
        Ok(Ok(())) => info!(before, after = engine.table_bytes(), "tables are merged"),
        Ok(Err(fault)) => warn!(%fault, "tables could not be merged"),
        Err(error) => warn!(%error, "tables could not be merged"),
    }
}

/// What is short, if anything is.
fn shortage(engine: &DiskEngine, config: &Config) -> Option<String> {
    if let Some(quota) = config.quota_bytes {
        let used = engine.table_bytes();
        if used > quota {
            return Some(format!("the store takes {used} bytes, --quota-bytes is {quota}"));
        }
    }
    let reserve = config.disk_reserve_bytes;
    match free_bytes(&config.data_dir) {
        Ok(free) if free < reserve => {
            let dir = config.data_dir.display();
            Some(format!(
                "{free} bytes are free on the file system of {dir}, --disk-reserve-bytes is {reserve}"
            ))
        }
        Ok(_) => None,
        Err(error) => {
            debug!(%error, "cannot tell how much space is free");
            None
        }
    }
}

/// Bytes that this process may still write on the file system of `path`.
fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

//! The ordered store on disk, behind the engine seam: rows in memory ([`quorate_storage::front`]) in front of a tree of files ([`tree`]).
//!
//! What was not spilled into the tree when the process ends is lost here, and the replicated log replays it. [`Engine::flush`] spills everything; besides, whoever has the engine spills when a layer is
//! sealed ([`DiskEngine::tend`]), so that those who write need not.

mod easing;
mod manifest;
mod moment;
mod rest;
mod tree;

use crate::priority::keeps_house;
use quorate_mvcc::engine::{Batch, Engine, Read, Row, RowRange, Rows, Table};
use quorate_storage::front::Front;
use quorate_types::{Bytes, Fault, crash_point};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tree::DiskTree;

pub use rest::Rest;
pub(crate) use tree::GivenUp;
pub use tree::TreeView;

/// Rows in memory are sealed when they take so much; three times of it may be in memory. Smaller layers are merged more often.
const LAYER_BYTES: usize = 96 << 20;
/// A disk's error, as the system numbers it.
const EIO: i32 = 5;

/// The store; clones are the same store.
#[derive(Clone)]
pub struct DiskEngine {
    front: Front<DiskTree>,
    /// About how many bytes were written,
    written: Arc<AtomicU64>,
    /// of these not by who keeps house,
    served: Arc<AtomicU64>,
    /// and rows removed.
    removed: Arc<AtomicU64>,
}

fn fault(doing: &str) -> impl Fn(lsm_tree::Error) -> Fault + '_ {
    move |error| {
        if is_damage(&error) { Fault::damage(doing, error) } else { Fault::new(doing, error) }
    }
}

/// The same of reading what is stored: what the disk cannot read any more is as good as damaged, and may be had again by being written elsewhere. Not so
/// where it refuses to be written.
fn read_fault(doing: &str) -> impl Fn(lsm_tree::Error) -> Fault + '_ {
    move |error| {
        let is_unreadable = matches!(&error, lsm_tree::Error::Io(io) if io.raw_os_error() == Some(EIO));
        if is_unreadable || is_damage(&error) {
            Fault::damage(doing, error)
        } else {
            Fault::new(doing, error)
        }
    }
}

/// Whether what was stored makes no sense, or is gone.
fn is_damage(error: &lsm_tree::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    match error {
        // It looks for what is at a place that there cannot be.
        lsm_tree::Error::Io(error) => {
            matches!(error.kind(), InvalidData | InvalidInput | NotFound | UnexpectedEof)
        }
        error => !matches!(error, lsm_tree::Error::InvalidVersion(_)),
    }
}

/// Whether the store has given up by itself: a thread of its own panicked, which may have been damage.
pub fn has_given_up(fault: &Fault) -> bool {
    fault.cause.is::<GivenUp>()
}

impl DiskEngine {
    /// Opens the store in a folder, making it if there is none. `cache_bytes` is memory for blocks read.
    ///
    /// # Errors
    /// Damage, if what is there makes no sense. The folder cannot be used.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, Fault> {
        let doing = format!("opening the store {}", path.display());
        let failed = |error| Fault::new(doing.as_str(), error);
        if path.join("keyspaces").exists() {
            let why = "it is of a version before 2026-11-23, which kept its rows in another way; that version can be used to move what it has";
            return Err(Fault::new(doing.as_str(), why));
        }
        let folder = path.join("tree");
        std::fs::create_dir_all(&folder).map_err(failed)?;
        manifest::check(&folder)?;
        crash_point("store.open.checked");
        let served = Arc::default();
        let tree = DiskTree::open(&folder, cache_bytes, Arc::clone(&served))?;
        crash_point("store.open.tree");
        // Names that were made without being made durable, which not every file system does by itself.
        for names in [path.join("tree"), path.to_owned()] {
            std::fs::File::open(names).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        crash_point("store.open.named");
        Ok(Self {
            front: Front::new(tree, LAYER_BYTES),
            served,
            written: Arc::default(),
            removed: Arc::default(),
        })
    }

    fn tree(&self) -> &DiskTree {
        self.front.base()
    }

    /// Bytes of the files of rows.
    pub fn table_bytes(&self) -> u64 {
        self.tree().bytes()
    }

    /// Whether spilling or merging lags so far behind what is written that before long writes will have to wait.
    pub fn is_behind(&self) -> bool {
        let (active, sealed) = self.front.bytes();
        self.tree().is_behind() || (sealed > 0 && active > LAYER_BYTES / 2)
    }

    /// Rows removed since the process started. Their space comes back when files are merged.
    pub fn removed(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }

    /// About how many bytes were written since the process started.
    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The store is about to be closed: nothing that is written to files takes its time for the sake of others any more.
    pub fn hurry(&self) {
        self.tree().hurry();
    }

    /// Spills what is sealed, and lets go of files that nobody reads any more. To be called every so often, on a thread that may take its time.
    ///
    /// # Errors
    /// The disk failed, or what was to be merged is damaged.
    pub fn tend(&self) -> Result<(), Fault> {
        match self.tree().problem() {
            Some(problem) => Err(problem),
            None => {
                self.tree().tidy();
                self.front.spill().map(drop)
            }
        }
    }

    /// Merges everything, with whatever is in memory, so that removed rows give their space back now rather than in time. Takes
    /// as long as reading and writing all data; reads and writes go on.
    ///
    /// # Errors
    /// As of [`Self::tend`].
    pub fn reclaim(&self) -> Result<(), Fault> {
        self.flush()?;
        crash_point("store.reclaim.written");
        self.tree().merge_everything()?;
        crash_point("store.reclaim.merged");
        Ok(())
    }
}

impl Read for DiskEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.front.get(table, key)
    }

    fn scan(&self, table: Table, range: RowRange) -> Rows<'_> {
        self.front.scan(table, range)
    }

    fn scan_back(&self, table: Table, range: RowRange) -> Rows<'_> {
        self.front.scan_back(table, range)
    }

    fn first(&self, table: Table, range: RowRange) -> Result<Option<Row>, Fault> {
        self.front.first(table, range)
    }
}

impl Engine for DiskEngine {
    type Snapshot = quorate_storage::front::FrontSnapshot<TreeView>;

    fn snapshot(&self) -> Self::Snapshot {
        self.front.snapshot()
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let (mut bytes, mut removed) = (0, 0);
        for (_, key, value) in &batch.changes {
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            removed += u64::from(value.is_none());
        }
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        if !keeps_house() {
            self.served.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        self.removed.fetch_add(removed, Ordering::Relaxed);
        self.front.write(batch)
    }

    fn flush(&self) -> Result<(), Fault> {
        self.front.flush()
    }

    fn disk_bytes(&self) -> u64 {
        self.front.disk_bytes()
    }

    fn row_count(&self) -> u64 {
        self.front.row_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Bound::{Excluded, Included};

    #[test]
    fn rows_survive_reopening_and_snapshots_stand_still() {
        let dir = tempfile::tempdir().unwrap();
        let engine = DiskEngine::open(dir.path(), 1 << 20).unwrap();
        let put = |engine: &DiskEngine, from: u8, to: u8| {
            let mut batch = Batch::default();
            for key in from..to {
                batch.put(Table::Version, vec![key], vec![key]);
                batch.put(Table::State, vec![0], vec![key]);
            }
            engine.write(batch).unwrap();
        };
        put(&engine, 0, 5);
        let snapshot = engine.snapshot();
        put(&engine, 5, 9);
        engine.flush().unwrap();
        let range = || (Included(Bytes::from(vec![2])), Excluded(Bytes::from(vec![7])));
        let keys = |rows: Rows<'_>| rows.map(|row| row.unwrap().0[0]).collect::<Vec<_>>();
        assert_eq!(keys(snapshot.scan(Table::Version, range())), [2, 3, 4]);
        assert_eq!(snapshot.get(Table::State, &[0]).unwrap().unwrap()[..], [4]);
        drop(snapshot);
        drop(engine);
        let engine = DiskEngine::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(keys(engine.scan(Table::Version, range())), [2, 3, 4, 5, 6]);
        assert_eq!(keys(engine.scan_back(Table::Version, range())), [6, 5, 4, 3, 2]);
        let inverted = (Included(Bytes::from(vec![7])), Excluded(Bytes::from(vec![2])));
        assert!(keys(engine.scan(Table::Version, inverted)).is_empty());
    }
}

//! The ordered store on disk: fjall, an LSM tree, behind the engine seam.
//!
//! Three fjall keyspaces hold the three tables of all groups. A batch is one atomic write over them; it is handed
//! to the system at once and made durable by [`Engine::flush`]. Until then the replicated log can
//! replay it, which is also why the tail of the journal may be dropped after a crash ([`journal`]). fjall verifies the checksum
//! of every block it reads, not that of the lists of tables ([`manifest`]); rows carry one of their own besides. fjall panics on keys that are longer than its format can say,
//! also when they are only looked for; what is asked for is cut to that length first.
//!
//! Caveat: a write waits while fjall's own flushing or compaction lags behind.

pub(crate) mod journal;
mod manifest;
mod rest;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use quorate_mvcc::engine::{Batch, Engine, ROW_KEY_BYTES_MAX, Read, Row, RowRange, Rows, Table};
use quorate_types::{Bytes, Fault, crash_point};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tracing::warn;

pub use rest::Rest;

/// What is written to memory before a table's part is written to disk. The memory is taken as it fills, and by all tables together no more than the journals
/// hold. With a quarter of it a node that is filled merges so much more often that the store takes twice the processor time.
const MEMTABLE_BYTES: u64 = 64 << 20;
/// A disk's error, as the system numbers it.
const EIO: i32 = 5;
/// What a restart has to read again at most.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;
/// The first only flushes, and passes merging on to the others; as long as none of those is free it does nothing but that, with all of a processor. With two
/// that would be whenever anything is merged; a third nearly always is free.
const WORKERS: usize = 3;
/// Written and not synced: from so much on the disk is to begin with it.
const EASED_BYTES: u64 = 256 << 10;
/// Parts of tables waiting to be written to disk, and written and not merged, from which on the store is behind. From twice as many on writes wait.
const FLUSHES_BEHIND: usize = 2;
const TABLES_BEHIND: usize = 10;

/// The store; clones are the same store.
#[derive(Clone)]
pub struct FjallEngine {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    database: Database,
    tables: [Keyspace; 3],
    is_poisoned: AtomicBool,
    /// About how many bytes were written,
    written: AtomicU64,
    /// and how many of them when the journals were last synced.
    synced: AtomicU64,
    /// Rows removed so far: what a reclaim may give back.
    removed: AtomicU64,
}

/// A view of one moment.
pub struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    inner: Arc<Inner>,
}

fn fault(doing: &str) -> impl Fn(fjall::Error) -> Fault + '_ {
    move |error| {
        if is_damage(&error) { Fault::damage(doing, error) } else { Fault::new(doing, error) }
    }
}

/// The same of reading what is stored: what the disk cannot read any more is as good as damaged, and may be had again by being written elsewhere. Not so
/// where it refuses to be written.
fn read_fault(doing: &str) -> impl Fn(fjall::Error) -> Fault + '_ {
    move |error| {
        let io = match &error {
            fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => Some(io),
            _ => None,
        };
        let is_unreadable = io.and_then(std::io::Error::raw_os_error) == Some(EIO);
        if is_unreadable || is_damage(&error) {
            Fault::damage(doing, error)
        } else {
            Fault::new(doing, error)
        }
    }
}

/// Whether what was stored makes no sense, or is gone.
fn is_damage(error: &fjall::Error) -> bool {
    use fjall::Error::{Decompress, InvalidTag, InvalidTrailer, InvalidVersion, Io};
    use fjall::Error::{JournalRecovery, Storage, Unrecoverable};
    use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    match error {
        // It looks for what is at a place that there cannot be.
        Io(error) | Storage(fjall::LsmError::Io(error)) => {
            matches!(error.kind(), InvalidData | InvalidInput | NotFound | UnexpectedEof)
        }
        Storage(error) => !matches!(error, fjall::LsmError::InvalidVersion(_)),
        InvalidVersion(None) | JournalRecovery(_) | Decompress(_) | InvalidTrailer | InvalidTag(_)
        | Unrecoverable => true,
        _ => false,
    }
}

/// Whether the store has given up by itself: a thread of its own met an error, which may have been damage.
pub fn has_given_up(fault: &Fault) -> bool {
    matches!(fault.cause.downcast_ref::<fjall::Error>(), Some(fjall::Error::Poisoned))
}

impl FjallEngine {
    /// Opens the store in a folder, making it if there is none. `cache_bytes` is memory for blocks read.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, Fault> {
        manifest::check(path)?;
        if let Some(cut) = journal::mend(path)? {
            let (file, offset) = (cut.file.display(), cut.offset);
            warn!(%file, offset, "the end of the store's journal makes no sense, as after a failure of the power; it is cut off there, and the log has what it held");
        }
        crash_point("store.open.mended");
        let doing = format!("opening the store {}", path.display());
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(WORKERS)
            .open()
            .map_err(fault(&doing))?;
        let table = |name: &str| {
            database
                .keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES))
                .map_err(fault(&doing))
        };
        crash_point("store.open.database");
        let tables = [table("version")?, table("change")?, table("state")?];
        crash_point("store.open.tables");
        // fjall makes the folders of its keyspaces without making their names durable, which not every file system does by itself.
        for names in [path.join("keyspaces"), path.to_owned()] {
            let synced = std::fs::File::open(names).and_then(|folder| folder.sync_all());
            synced.map_err(|error| Fault::new(doing.as_str(), error))?;
        }
        crash_point("store.open.named");
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                database,
                tables,
                is_poisoned: AtomicBool::new(false),
                written: AtomicU64::new(0),
                synced: AtomicU64::new(0),
                removed: AtomicU64::new(0),
            }),
        })
    }
}

impl FjallEngine {
    /// Bytes of the tables on disk: what data takes, without the journals, which have a size of their own.
    pub fn table_bytes(&self) -> u64 {
        self.inner.tables.iter().map(Keyspace::disk_space).sum()
    }

    /// Whether flushing or merging lags so far behind what is written that before long writes will have to wait.
    pub fn is_behind(&self) -> bool {
        self.inner.database.outstanding_flushes() >= FLUSHES_BEHIND
            || self.inner.tables.iter().any(|table| table.l0_table_count() >= TABLES_BEHIND)
    }

    /// Rows removed since the process started. Their space comes back when tables are merged.
    pub fn removed(&self) -> u64 {
        self.inner.removed.load(Ordering::Relaxed)
    }

    /// About how many bytes were written since the process started.
    fn written(&self) -> u64 {
        self.inner.written.load(Ordering::Relaxed)
    }

    /// Has the disk begin with what will have to be durable, if that is much. A sync of all of it at once is one that those of the log wait behind, and with them
    /// everybody who writes. To be called now and then beside [`Engine::flush`], which is what makes it durable.
    pub fn ease(&self) -> Result<(), Fault> {
        let written = self.written();
        if written.saturating_sub(self.inner.synced.load(Ordering::Relaxed)) < EASED_BYTES {
            return Ok(());
        }
        self.inner.guarded("syncing the store's journals", || {
            self.inner.synced.fetch_max(written, Ordering::Relaxed);
            Ok(journal::sync(&self.inner.path)?)
        })
    }

    /// Merges every table with whatever is in memory, so that removed rows give their space back now rather than in time. Takes
    /// as long as reading and writing all data; reads and writes go on.
    pub fn reclaim(&self) -> Result<(), Fault> {
        for table in &self.inner.tables {
            table.rotate_memtable_and_wait().map_err(fault("writing a table"))?;
            crash_point("store.reclaim.written");
        }
        for table in &self.inner.tables {
            table.major_compact().map_err(fault("merging a table"))?;
            crash_point("store.reclaim.merged");
        }
        Ok(())
    }
}

impl Inner {
    fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table as usize]
    }

    /// What scans read. A range of a fjall keyspace itself shows writes that come while it is read, and parts of a batch
    /// that is being written.
    fn now(&self) -> fjall::Snapshot {
        self.database.snapshot()
    }

    /// After a failed write nobody knows what reached the disk, so nothing more is written.
    fn guarded(&self, doing: &str, write: impl FnOnce() -> fjall::Result<()>) -> Result<(), Fault> {
        if self.is_poisoned.load(Ordering::Acquire) {
            return Err(Fault::new(doing, "an earlier write failed"));
        }
        write().map_err(|error| {
            self.is_poisoned.store(true, Ordering::Release);
            Fault::new(doing, error)
        })
    }
}

/// The same range in bounds that fjall takes; `None` if nothing can be in it.
fn bounded((start, end): RowRange) -> Option<RowRange> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let is_long = |key: &Bytes| key.len() > ROW_KEY_BYTES_MAX;
    // Of all rows that may be, the longest that begins a long bound stands right before it.
    let start = match start {
        Included(key) | Excluded(key) if is_long(&key) => Excluded(key.slice(..ROW_KEY_BYTES_MAX)),
        start => start,
    };
    let end = match end {
        Included(key) | Excluded(key) if is_long(&key) => Included(key.slice(..ROW_KEY_BYTES_MAX)),
        end => end,
    };
    let is_empty = match (&start, &end) {
        (Included(a), Included(b)) => a > b,
        (Included(a), Excluded(b)) | (Excluded(a), Included(b)) | (Excluded(a), Excluded(b)) => a >= b,
        (Unbounded, _) | (_, Unbounded) => false,
    };
    (!is_empty).then_some((start, end))
}

fn row(guard: fjall::Guard) -> Result<Row, Fault> {
    let (key, value) = guard.into_inner().map_err(read_fault("reading the store"))?;
    Ok((key.into(), value.into()))
}

impl Read for FjallEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if key.len() > ROW_KEY_BYTES_MAX {
            return Ok(None);
        }
        let found = self.inner.table(table).get(key).map_err(read_fault("reading the store"))?;
        Ok(found.map(Into::into))
    }

    fn scan(&self, table: Table, range: RowRange) -> Rows<'_> {
        let Some(range) = bounded(range) else { return Box::new(std::iter::empty()) };
        Box::new(self.inner.now().range(self.inner.table(table), range).map(row))
    }

    fn scan_back(&self, table: Table, range: RowRange) -> Rows<'_> {
        let Some(range) = bounded(range) else { return Box::new(std::iter::empty()) };
        Box::new(self.inner.now().range(self.inner.table(table), range).rev().map(row))
    }
}

impl Read for FjallSnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if key.len() > ROW_KEY_BYTES_MAX {
            return Ok(None);
        }
        let found =
            self.snapshot.get(self.inner.table(table), key).map_err(read_fault("reading a snapshot"))?;
        Ok(found.map(Into::into))
    }

    fn scan(&self, table: Table, range: RowRange) -> Rows<'_> {
        let Some(range) = bounded(range) else { return Box::new(std::iter::empty()) };
        Box::new(self.snapshot.range(self.inner.table(table), range).map(row))
    }

    fn scan_back(&self, table: Table, range: RowRange) -> Rows<'_> {
        let Some(range) = bounded(range) else { return Box::new(std::iter::empty()) };
        Box::new(self.snapshot.range(self.inner.table(table), range).rev().map(row))
    }
}

impl Engine for FjallEngine {
    type Snapshot = FjallSnapshot;

    fn snapshot(&self) -> FjallSnapshot {
        FjallSnapshot { snapshot: self.inner.database.snapshot(), inner: self.inner.clone() }
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        self.inner.guarded("writing to the store", || {
            let mut write = self.inner.database.batch();
            let mut bytes = 0;
            for (table, key, value) in batch.changes {
                bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
                let table = self.inner.table(table);
                match value {
                    Some(value) => {
                        write.insert(table, key, value);
                    }
                    None => {
                        self.inner.removed.fetch_add(1, Ordering::Relaxed);
                        write.remove(table, key);
                    }
                }
            }
            self.inner.written.fetch_add(bytes as u64, Ordering::Relaxed);
            crash_point("store.batch.ready");
            write.commit()?;
            crash_point("store.batch.written");
            Ok(())
        })
    }

    fn flush(&self) -> Result<(), Fault> {
        self.inner.guarded("flushing the store", || {
            crash_point("store.flush.begun");
            // fjall syncs with a lock held that every write needs; by then there is to be nothing left that takes long.
            self.inner.synced.fetch_max(self.written(), Ordering::Relaxed);
            journal::sync(&self.inner.path)?;
            self.inner.database.persist(PersistMode::SyncAll)?;
            crash_point("store.flush.durable");
            Ok(())
        })
    }

    fn disk_bytes(&self) -> u64 {
        // Tables and journals; when it cannot be told, the tables alone.
        let tables = || self.inner.tables.iter().map(Keyspace::disk_space).sum();
        self.inner.database.disk_space().unwrap_or_else(|_| tables())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Bound::{Excluded, Included};

    #[test]
    fn rows_survive_reopening_and_snapshots_stand_still() {
        let dir = tempfile::tempdir().unwrap();
        let engine = FjallEngine::open(dir.path(), 1 << 20).unwrap();
        let put = |engine: &FjallEngine, from: u8, to: u8| {
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
        let engine = FjallEngine::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(keys(engine.scan(Table::Version, range())), [2, 3, 4, 5, 6]);
        assert_eq!(keys(engine.scan_back(Table::Version, range())), [6, 5, 4, 3, 2]);
        let inverted = (Included(Bytes::from(vec![7])), Excluded(Bytes::from(vec![2])));
        assert!(keys(engine.scan(Table::Version, inverted)).is_empty());
    }
}

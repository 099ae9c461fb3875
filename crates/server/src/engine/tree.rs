//! The tables on disk: a log-structured merge tree that takes rows in bulk.
//!
//! One tree of the crate `lsm-tree` holds the three tables of all groups, each row under the number of its table and its key: so what is loaded at once becomes visible and durable by the exchange
//! of one file. Its rows in memory, and with them a journal, are not used; those are [`quorate_storage::front`]'s. It verifies the checksum of every block it reads, not that of the lists
//! of its files ([`super::manifest`]); rows carry one of their own besides. It panics on keys that are longer than its format can say, also when they are only looked for; what is asked for is
//! cut to that length first.
//!
//! Two threads merge: while one of them merges much, files that come need not wait. Where they cannot keep up, loading waits.

use super::easing::{self, Easing};
use super::moment::{Moment, TreeRange};
use super::{LAYER_BYTES, fault, read_fault};
use crate::priority::{give_way, yield_to_others};
use lsm_tree::compaction::Leveled;
use lsm_tree::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};
use lsm_tree::config::{CompressionPolicy, PinningPolicy, RestartIntervalPolicy};
use lsm_tree::{AbstractTree, AnyTree, Cache, CompressionType, Config, InternalValue, SequenceNumberCounter};
use parking_lot::{Mutex, RwLock};
use quorate_mvcc::engine::{ROW_KEY_BYTES_MAX, Row, RowRange, Rows, Table};
use quorate_storage::front::{Base, Loaded, View};
use quorate_types::{Bytes, Fault, crash_point};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tracing::warn;

/// About the size of a file of rows.
const FILE_BYTES: u64 = 64 << 20;
/// Files that were loaded and not merged, from which on merging takes the disk, from which on the store is behind, and from which on loading waits.
const FILES_PRESSING: usize = 6;
const FILES_BEHIND: usize = 10;
const FILES_MAX: usize = 20;
/// Between two looks whether they have become fewer.
const BEHIND: Duration = Duration::from_millis(5);
/// Of a store that is larger, removed rows give their space back in time only: files that come while everything is merged are not, and those who write may have to wait.
const EVERYTHING_BYTES_MAX: u64 = 2 << 30;
/// This part of the rows says that others are gone.
const WORTH_PART: u64 = 16;
/// Threads that merge.
const MERGERS: usize = 2;

/// Who merges lets others go on, row by row; all rows stay.
struct GivesWay(AssertUnwindSafe<Arc<easing::State>>);

impl Factory for GivesWay {
    fn name(&self) -> &'static str {
        "gives way"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Self(AssertUnwindSafe(Arc::clone(&self.0))))
    }
}

impl CompactionFilter for GivesWay {
    /// Of every row but those that say that others are gone.
    fn filter_item(&mut self, row: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        self.0.merges(row.key().len() + row.value()?.len());
        Ok(Verdict::Keep)
    }
}

/// The tree; dropping it ends its threads.
pub(super) struct DiskTree {
    inner: Arc<Inner>,
    /// About how many bytes were written to rows in memory for clients.
    served: Arc<AtomicU64>,
    wake: crossbeam_channel::Sender<()>,
    mergers: Vec<std::thread::JoinHandle<()>>,
}

struct Inner {
    path: PathBuf,
    tree: AnyTree,
    /// The next number of a load or a merge, and what is older than which is merged away where something newer is.
    next: SequenceNumberCounter,
    visible: SequenceNumberCounter,
    /// What is read,
    now: RwLock<Arc<Moment>>,
    /// and what was before, and may be still.
    past: Mutex<Vec<Arc<Moment>>>,
    /// Held while the first of these is taken from the tree: else who took it first might be the last to set it.
    refresh: Mutex<()>,
    is_ending: AtomicBool,
    has_failed: AtomicBool,
    /// Everything is to be merged.
    is_everything_due: AtomicBool,
    /// What a thread of ours has met.
    problem: Mutex<Option<Fault>>,
    easing: Easing,
}

/// A thread of the store ended in a way that it should not have; what was wrong nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("a thread that merges the store's files has panicked")]
pub(crate) struct GivenUp;

/// A view of one moment.
#[derive(Clone)]
pub struct TreeView {
    moment: Arc<Moment>,
    /// Files that are merged are removed when nobody looks at them any more, by what is in here.
    _tree: Arc<Inner>,
}

impl DiskTree {
    /// Opens the tree in a folder, making it if there is none. Nobody may still have a view, or read rows, of one that was open there before: its files go by their names.
    pub(super) fn open(path: &Path, cache_bytes: u64, served: Arc<AtomicU64>) -> Result<Self, Fault> {
        let doing = format!("opening the store {}", path.display());
        let (next, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let easing = Easing::new(&path.join("tables"), Arc::clone(&served))?;
        let gives_way = GivesWay(AssertUnwindSafe(easing.state()));
        let plain_above_last = [CompressionType::None, CompressionType::None, CompressionType::Lz4];
        let tree = Config::new(path, next.clone(), visible.clone())
            .use_cache(Arc::new(Cache::with_capacity_bytes(cache_bytes)))
            .data_block_compression_policy(CompressionPolicy::new(plain_above_last))
            .data_block_restart_interval_policy(RestartIntervalPolicy::new([10, 16]))
            .index_block_pinning_policy(PinningPolicy::new([true, true, false]))
            .with_compaction_filter_factory(Some(Arc::new(gives_way)))
            .open()
            .map_err(fault(&doing))?;
        let newest = tree.get_highest_seqno().map_or(0, |newest| newest + 1);
        next.set(newest);
        visible.set(newest);
        let now = RwLock::new(Arc::new(Moment::of(&tree)));
        let inner = Arc::new(Inner {
            path: path.to_owned(),
            tree,
            next,
            visible,
            now,
            past: Mutex::default(),
            refresh: Mutex::new(()),
            has_failed: AtomicBool::new(false),
            is_everything_due: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            problem: Mutex::default(),
            easing,
        });
        let (wake, woken) = crossbeam_channel::bounded(MERGERS);
        let merger = |_| {
            let (inner, woken) = (inner.clone(), woken.clone());
            let begun = std::thread::Builder::new().name("merge".to_owned()).spawn(move || {
                yield_to_others();
                inner.merge_all(&woken);
            });
            begun.map_err(|error| Fault::new(doing.as_str(), error))
        };
        let mergers = (0..MERGERS).map(merger).collect::<Result<_, Fault>>()?;
        let tree = Self { inner, served, wake, mergers };
        tree.wake();
        Ok(tree)
    }

    /// What a thread that merges has met, once.
    pub(super) fn problem(&self) -> Option<Fault> {
        self.inner.problem.lock().take()
    }

    /// Whether merging lags behind.
    pub(super) fn is_behind(&self) -> bool {
        self.inner.tree.l0_run_count() >= FILES_BEHIND
    }

    /// Lets go of files that nobody reads any more.
    pub(super) fn tidy(&self) {
        self.inner.tidy();
    }

    /// Bytes of the files of rows.
    pub(super) fn bytes(&self) -> u64 {
        self.inner.tree.disk_space()
    }

    /// Whether so many of the rows in files say that others are gone that merging everything is worth it, which takes as long as reading and writing everything.
    pub(super) fn is_worth_merging(&self) -> bool {
        let (bytes, rows) = (self.bytes(), self.inner.tree.approximate_len() as u64);
        let is_worth_it =
            bytes <= EVERYTHING_BYTES_MAX && self.inner.tree.tombstone_count() > rows / WORTH_PART;
        // All of it is there twice before the old files go, and others need space as well.
        is_worth_it
            && rustix::fs::statvfs(&self.inner.path)
                .is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) / 3 > bytes)
    }

    /// Has everything merged, on a thread that merges.
    pub(super) fn merge_everything_soon(&self) {
        self.inner.is_everything_due.store(true, Ordering::Release);
        self.wake();
    }

    /// The store is about to be closed: what is being written is not to take its time any more.
    pub(super) fn hurry(&self) {
        self.inner.easing.end();
    }

    /// Merges everything, so that removed rows give their space back now rather than in time.
    pub(super) fn merge_everything(&self) -> Result<(), Fault> {
        self.inner.merge_everything().map_err(read_fault("merging the store"))
    }

    fn wake(&self) {
        // Where there is no room everybody is awake, or about to be.
        for _ in 0..MERGERS {
            let _ = self.wake.try_send(());
        }
    }

    /// Waits while merging is far behind.
    fn wait(&self) {
        while self.inner.tree.l0_run_count() >= FILES_MAX && !self.inner.has_failed.load(Ordering::Acquire) {
            std::thread::sleep(BEHIND);
        }
    }
}

impl Drop for DiskTree {
    fn drop(&mut self) {
        self.hurry();
        self.inner.is_ending.store(true, Ordering::Release);
        self.wake();
        for merger in self.mergers.drain(..) {
            // That it panicked was said.
            let _ = merger.join();
        }
    }
}

impl Inner {
    /// What is read from here on is what the tree holds now.
    fn refresh(&self) {
        let _turn = self.refresh.lock();
        let moment = Arc::new(Moment::of(&self.tree));
        let before = std::mem::replace(&mut *self.now.write(), moment);
        self.past.lock().push(before);
        self.easing.press(self.tree.l0_run_count() >= FILES_PRESSING);
    }

    /// Forgets moments that nobody looks at any more, and with the last of a file the file. Who reads does not: removing a file may take milliseconds.
    fn tidy(&self) {
        let mut past = self.past.lock();
        let (kept, gone): (Vec<_>, Vec<_>) = past.drain(..).partition(|moment| Arc::strong_count(moment) > 1);
        *past = kept;
        drop(past);
        drop(gone);
    }

    /// Lets go of files that were merged, as far as nobody looks at them. Of what was loaded only the newest is looked at; older views have the files of their time.
    fn let_go(&self) -> lsm_tree::Result<()> {
        // With the tree's lock held no file is removed: moments have them.
        self.tree.get_version_history_lock().maintenance(&self.path, self.visible.get())?;
        self.refresh();
        self.tidy();
        Ok(())
    }

    /// Merges whenever there is something to, until the tree is dropped.
    fn merge_all(&self, woken: &crossbeam_channel::Receiver<()>) {
        while woken.recv().is_ok() && !self.is_ending.load(Ordering::Acquire) {
            let easing = self.easing.begin();
            let merged = std::panic::catch_unwind(AssertUnwindSafe(|| self.merge()));
            // Who merges syncs each file himself, and the system tells him what has failed before.
            let merged = merged.map(|merged| merged.and_then(|()| Ok(easing.end().map(drop)?)));
            let problem = match merged {
                Ok(Ok(())) => continue,
                // Nearly all of it is reading what is stored.
                Ok(Err(error)) => read_fault("merging the store")(error),
                Err(_) => Fault::new("merging the store", GivenUp),
            };
            *self.problem.lock() = Some(problem);
            self.has_failed.store(true, Ordering::Release);
            return;
        }
    }

    fn merge_everything(&self) -> lsm_tree::Result<()> {
        let easing = self.easing.begin();
        self.tree.major_compact(FILE_BYTES, self.visible.get())?;
        self.let_go()?;
        Ok(easing.end().map(drop)?)
    }

    fn merge(&self) -> lsm_tree::Result<()> {
        if self.is_everything_due.swap(false, Ordering::AcqRel) {
            match self.merge_everything() {
                // Nobody has to have it, and what was there is there.
                Err(lsm_tree::Error::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
                    warn!(%error, "the store's files are not merged, for want of space");
                }
                merged => merged?,
            }
        }
        let strategy = Arc::new(Leveled::default().with_table_target_size(FILE_BYTES));
        loop {
            let before = self.next.get();
            self.tree.compact(strategy.clone(), self.visible.get())?;
            // What changes which files there are has a number.
            if self.next.get() == before || self.is_ending.load(Ordering::Acquire) {
                return self.let_go();
            }
            self.let_go()?;
        }
    }

    fn now(&self) -> Arc<Moment> {
        self.now.read().clone()
    }
}

fn get(moment: &Moment, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
    if key.len() > ROW_KEY_BYTES_MAX {
        return Ok(None);
    }
    let found = moment.get(&of_table(table, key)).map_err(read_fault("reading the store"))?;
    Ok(found.map(Into::into))
}

/// The key of a row in the tree.
fn of_table(table: Table, key: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(1 + key.len());
    whole.push(table as u8);
    whole.extend_from_slice(key);
    whole
}

/// The same range in bounds that the tree takes; `None` if nothing can be in it.
fn bounded(table: Table, (start, end): &RowRange) -> Option<TreeRange> {
    let is_long = |key: &Bytes| key.len() > ROW_KEY_BYTES_MAX;
    // Of all rows that may be, the longest that begins a long bound stands right before it.
    let cut = |key: &Bytes| of_table(table, &key[..ROW_KEY_BYTES_MAX]);
    let start = match start {
        Included(key) | Excluded(key) if is_long(key) => Excluded(cut(key)),
        Included(key) => Included(of_table(table, key)),
        Excluded(key) => Excluded(of_table(table, key)),
        Unbounded => Included(vec![table as u8]),
    };
    let end = match end {
        Included(key) | Excluded(key) if is_long(key) => Included(cut(key)),
        Included(key) => Included(of_table(table, key)),
        Excluded(key) => Excluded(of_table(table, key)),
        Unbounded => Excluded(vec![table as u8 + 1]),
    };
    let is_empty = match (&start, &end) {
        (Included(a), Included(b)) => a > b,
        (Included(a), Excluded(b)) | (Excluded(a), Included(b)) | (Excluded(a), Excluded(b)) => a >= b,
        (Unbounded, _) | (_, Unbounded) => false,
    };
    (!is_empty).then_some((start, end))
}

fn row(found: lsm_tree::Result<InternalValue>) -> Result<Row, Fault> {
    let InternalValue { key, value } = found.map_err(read_fault("reading the store"))?;
    let key: Bytes = key.user_key.into();
    Ok((key.slice(1..), value.into()))
}

/// Rows of a moment, which outlives what they have of it: so they are not the last to have a file.
struct FileRows<I> {
    rows: I,
    _moment: Arc<Moment>,
}

impl<I: Iterator<Item = lsm_tree::Result<InternalValue>>> Iterator for FileRows<I> {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        give_way();
        self.rows.next().map(row)
    }
}

impl Base for DiskTree {
    type View = TreeView;

    fn view(&self) -> TreeView {
        TreeView { moment: self.inner.now(), _tree: self.inner.clone() }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        get(&self.inner.now(), table, key)
    }

    fn load(&self, changes: &mut dyn Iterator<Item = Loaded<'_>>) -> Result<(), Fault> {
        self.wait();
        let easing = self.inner.easing.begin();
        let (pace, before) = (self.inner.easing.state(), self.served.load(Ordering::Relaxed));
        // What comes meanwhile goes to memory, where there is room for so much.
        let is_pressed = || self.served.load(Ordering::Relaxed) - before > LAYER_BYTES as u64 / 16;
        let load = || {
            let mut load = self.inner.tree.ingestion()?;
            for (table, key, value) in changes {
                pace.writes(key.len() + value.map_or(0, Bytes::len), is_pressed);
                let key = of_table(table, key);
                match value {
                    Some(value) => load.write(key, value.clone())?,
                    None => load.write_tombstone(key)?,
                }
            }
            crash_point("store.load.written");
            let _still = easing.end()?;
            load.finish()
        };
        load().map_err(fault("writing to the store"))?;
        drop(easing);
        self.inner.refresh();
        self.wake();
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.bytes()
    }

    fn row_count(&self) -> u64 {
        self.inner.tree.approximate_len() as u64
    }
}

impl View for TreeView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        get(&self.moment, table, key)
    }

    fn rows(&self, table: Table, range: RowRange, is_back: bool) -> Rows<'static> {
        let Some(range) = bounded(table, &range) else { return Box::new(std::iter::empty()) };
        let rows = self.moment.rows(&range);
        let _moment = self.moment.clone();
        if is_back {
            Box::new(FileRows { rows: rows.rev(), _moment })
        } else {
            Box::new(FileRows { rows, _moment })
        }
    }
}

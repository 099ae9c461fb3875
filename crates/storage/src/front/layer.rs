//! Rows in memory that have not been loaded into the base yet.
//!
//! One ordered map for each table. A row carries the number of the batch that wrote it; what it was before is kept only while somebody has a view that may want it. Keys stand in
//! the map itself where they are short: finding a place among many keys is mostly waiting for memory.

use super::Loaded;
use quorate_mvcc::engine::{Batch, Table};
use quorate_types::Bytes;
use smallvec::SmallVec;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// Keys of up to so many bytes are not allocated.
const SHORT_KEY_BYTES: usize = 40;
/// About what a row takes in memory beside its key and its value.
const ROW_BYTES: usize = 160;
/// And what it was before takes beside its value.
const OLDER_BYTES: usize = 80;
/// So many rows are looked at before others may write again.
const LOOKS_MAX: usize = 1_000;

type RowKey = SmallVec<[u8; SHORT_KEY_BYTES]>;

/// Rows, written to while it is the newest layer.
#[derive(Default)]
pub(super) struct Layer {
    contents: RwLock<Contents>,
    bytes: AtomicUsize,
    /// How many views there are, and the newest batch that any of them has shown.
    views: AtomicUsize,
    newest_view: AtomicU64,
}

#[derive(Default)]
struct Contents {
    tables: [BTreeMap<RowKey, Cell>; 3],
    /// How many batches were written.
    batches: u64,
}

/// A row; a value of `None` is that it is gone, whatever the base says.
struct Cell {
    batch: u64,
    value: Option<Bytes>,
    /// What it was before, for views; oldest first. Nearly always there is nothing, and then this takes as little as may be.
    older: Option<Box<Older>>,
}

type Older = Vec<(u64, Option<Bytes>)>;

impl Cell {
    /// What it is after that batch; `None` if it was not written by then.
    fn at(&self, batch: u64) -> Option<&Option<Bytes>> {
        if self.batch <= batch {
            return Some(&self.value);
        }
        let mut older = self.older.iter().flat_map(|older| older.iter().rev());
        older.find(|(of, _)| *of <= batch).map(|(_, value)| value)
    }

    fn value_bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }
}

impl Layer {
    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        // Writing does not panic half way through a batch but for want of memory, which ends the process.
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many rows it has, those among them that others are gone by.
    pub(super) fn len(&self) -> usize {
        self.read().tables.iter().map(BTreeMap::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.read().batches == 0
    }

    pub(super) fn write(&self, batch: Batch) {
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        let number = contents.batches + 1;
        // Views begin with the lock held, so there are no others.
        let has_views = self.views.load(Ordering::Acquire) > 0;
        let seen = if has_views { self.newest_view.load(Ordering::Acquire) } else { 0 };
        let (mut more, mut less) = (0, 0);
        for (table, key, value) in batch.changes {
            more += value.as_ref().map_or(0, Bytes::len);
            match contents.tables[table as usize].entry(RowKey::from_slice(&key)) {
                Entry::Vacant(vacant) => {
                    more += key.len() + ROW_BYTES;
                    vacant.insert(Cell { batch: number, value, older: None });
                }
                Entry::Occupied(mut occupied) => {
                    let cell = occupied.get_mut();
                    if cell.batch <= seen {
                        more += OLDER_BYTES;
                        let before = (cell.batch, cell.value.take());
                        cell.older.get_or_insert_default().push(before);
                    } else {
                        less += cell.value_bytes();
                        if !has_views && let Some(older) = cell.older.take() {
                            less += OLDER_BYTES * older.len();
                            less += older
                                .iter()
                                .filter_map(|(_, value)| value.as_ref())
                                .map(Bytes::len)
                                .sum::<usize>();
                        }
                    }
                    (cell.batch, cell.value) = (number, value);
                }
            }
        }
        contents.batches = number;
        self.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes.fetch_sub(less, Ordering::Relaxed);
    }

    /// The row as it is now: `None` if it was not written here, `Some(None)` if it is gone.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        self.read().tables[table as usize].get(key).map(|cell| cell.value.clone())
    }

    /// All rows as they are now, in the order of tables and keys.
    pub(super) fn with_rows<T>(&self, take: impl FnOnce(&mut dyn Iterator<Item = Loaded<'_>>) -> T) -> T {
        let contents = self.read();
        let tables = Table::ALL.into_iter().zip(&contents.tables);
        let mut rows = tables.flat_map(|(table, rows)| {
            rows.iter().map(move |(key, cell)| (table, &key[..], cell.value.as_ref()))
        });
        take(&mut rows)
    }
}

/// What stood in a layer at one moment.
pub(super) struct LayerView {
    layer: Arc<Layer>,
    /// The newest batch that counts.
    batch: u64,
}

impl LayerView {
    pub(super) fn new(layer: &Arc<Layer>) -> Self {
        let contents = layer.read();
        layer.views.fetch_add(1, Ordering::AcqRel);
        layer.newest_view.fetch_max(contents.batches, Ordering::AcqRel);
        Self { layer: layer.clone(), batch: contents.batches }
    }

    /// As [`Layer::get`].
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        self.layer.read().tables[table as usize].get(key)?.at(self.batch).cloned()
    }

    /// The first row of a range, also if it is gone.
    pub(super) fn first(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Option<(Bytes, Option<Bytes>)> {
        let contents = self.layer.read();
        let rows = contents.tables[table as usize].range::<[u8], _>(range);
        let mut visible = rows.filter_map(|(key, cell)| Some((key, cell.at(self.batch)?)));
        let (key, value) = visible.next()?;
        Some((Bytes::copy_from_slice(key), value.clone()))
    }

    /// Appends the next rows from the edge of `range` on: so many at most, and fewer if many were written later. Returns the key after which to go on, if there may be more.
    pub(super) fn page(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        is_back: bool,
        rows_max: usize,
        page: &mut VecDeque<(Bytes, Option<Bytes>)>,
    ) -> Option<Bytes> {
        let contents = self.layer.read();
        let mut rows = contents.tables[table as usize].range::<[u8], _>(range);
        let (mut left, mut looks) = (rows_max, LOOKS_MAX);
        loop {
            let (key, cell) = if is_back { rows.next_back() } else { rows.next() }?;
            (left, looks) = (left - 1, looks - 1);
            match cell.at(self.batch) {
                Some(value) => page.push_back((Bytes::copy_from_slice(key), value.clone())),
                None => left += 1,
            }
            if left == 0 || looks == 0 {
                return Some(Bytes::copy_from_slice(key));
            }
        }
    }
}

impl Clone for LayerView {
    fn clone(&self) -> Self {
        // It counts as long as this one does.
        self.layer.views.fetch_add(1, Ordering::AcqRel);
        Self { layer: self.layer.clone(), batch: self.batch }
    }
}

impl Drop for LayerView {
    fn drop(&mut self) {
        self.layer.views.fetch_sub(1, Ordering::AcqRel);
    }
}

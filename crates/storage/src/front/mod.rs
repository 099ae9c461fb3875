//! What was written lately stands in memory, in front of an ordered store that takes changes in bulk.
//!
//! The replicated log has every change already, synced, and replays what a store has lost. A store with a journal of its own writes everything once more for nothing; and one whose rows
//! in memory can be read while they are written, without a lock, pays for that with every row. So here is no journal, and a batch is written under one short lock. What is in memory stands in layers: one that is
//! written to, and those that are sealed and on their way into the base, of which there is one unless somebody flushes. The base takes a layer as a whole: after a crash all of its rows are there, or none. So a crash loses
//! the latest batches and nothing else, which is what [`Engine::write`] promises.
//!
//! Spilling, which loads a sealed layer into the base, is for a thread beside those that write: [`Front::spill`]. Who writes while two layers are full waits for it, or does it.

mod layer;
mod merge;
mod over_memory;

use crate::memory::is_inverted;
use layer::{Layer, LayerView};
use merge::{Cursor, Merged, borrowed};
use quorate_mvcc::engine::{Batch, Engine, Read, Row, RowRange, Rows, Table};
use quorate_types::{Bytes, Fault, crash_point};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A row, and what it is set to; `None` removes it, if it is there.
pub type Loaded<'a> = (Table, &'a [u8], Option<&'a Bytes>);

/// An ordered store that takes changes in bulk.
pub trait Base: Send + Sync + 'static {
    /// A view of one moment, kept for as long as it lives.
    type View: View;

    /// The rows as they are now.
    fn view(&self) -> Self::View;

    /// The row of exactly this key, now.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Makes changes visible at once, and durable: after a crash all of them are there, or none. They come in the order of tables and keys, each row once.
    fn load(&self, changes: &mut dyn Iterator<Item = Loaded<'_>>) -> Result<(), Fault>;

    /// About how many bytes the store takes on disk.
    fn disk_bytes(&self) -> u64;

    /// About how many rows it has.
    fn row_count(&self) -> u64;
}

/// Rows of one moment.
pub trait View: Clone + Send + Sync + 'static {
    /// The row of exactly this key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// The rows of a range, which is not inverted, ascending or descending; they outlive the view.
    fn rows(&self, table: Table, range: RowRange, is_back: bool) -> Rows<'static>;
}

/// The store; clones are the same store.
pub struct Front<B> {
    inner: Arc<Inner<B>>,
}

impl<B> Clone for Front<B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<B> {
    base: B,
    layers: RwLock<Layers>,
    /// From so many bytes on a layer is sealed.
    layer_bytes: usize,
    /// Layers spilled so far. Held while one is.
    spilled: Mutex<u64>,
    is_poisoned: AtomicBool,
}

/// Invariant: the base is given layers of `sealed` only, and a layer leaves it when the base shows it.
#[derive(Default)]
struct Layers {
    active: Arc<Layer>,
    /// Oldest first.
    sealed: Vec<Arc<Layer>>,
    /// How many were sealed so far.
    count: u64,
}

impl Layers {
    fn seal(&mut self) {
        if !self.active.is_empty() {
            self.sealed.push(std::mem::take(&mut self.active));
            self.count += 1;
        }
    }
}

impl<B: Base> Front<B> {
    /// In front of `base`, with nothing in memory. A layer is sealed when it takes `layer_bytes`; there may be three times as much in memory, and what one batch has. Besides, a view keeps the
    /// layers that had something when it began, also when they are spilled.
    pub fn new(base: B, layer_bytes: usize) -> Self {
        let inner = Inner {
            base,
            layers: RwLock::default(),
            layer_bytes,
            spilled: Mutex::new(0),
            is_poisoned: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What is behind it.
    pub fn base(&self) -> &B {
        &self.inner.base
    }

    /// About how many bytes are in memory: of the layer that is written to, and of what is sealed.
    pub fn bytes(&self) -> (usize, usize) {
        let layers = self.inner.layers();
        (layers.active.bytes(), layers.sealed.iter().map(|layer| layer.bytes()).sum())
    }

    /// Loads the oldest sealed layer into the base. Returns whether there was one.
    ///
    /// # Errors
    /// The base could not take it; nothing more may be written.
    pub fn spill(&self) -> Result<bool, Fault> {
        let mut spilled = self.inner.spilled.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = self.inner.layers().sealed.first().cloned();
        let Some(oldest) = oldest else { return Ok(false) };
        self.inner.check()?;
        crash_point("store.spill.begun");
        oldest.with_rows(|rows| self.inner.base.load(rows)).inspect_err(|_| self.inner.poison())?;
        crash_point("store.spill.loaded");
        self.inner.layers_mut().sealed.remove(0);
        *spilled += 1;
        Ok(true)
    }

    /// Seals what is in memory, so that it is spilled.
    pub fn seal(&self) {
        self.inner.layers_mut().seal();
    }

    /// Where a full layer is to go. Somebody spills the one before, or this thread does.
    fn make_room(&self) -> Result<(), Fault> {
        loop {
            {
                let mut layers = self.inner.layers_mut();
                let bytes = layers.active.bytes();
                if bytes < self.inner.layer_bytes {
                    return Ok(());
                }
                if layers.sealed.is_empty() {
                    layers.seal();
                    return Ok(());
                }
                if bytes < 2 * self.inner.layer_bytes {
                    return Ok(());
                }
            }
            self.spill()?;
        }
    }

    fn rows(&self, table: Table, range: RowRange, is_back: bool) -> Rows<'static> {
        self.snapshot().rows(table, range, is_back)
    }
}

impl<B> Inner<B> {
    fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn layers_mut(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn poison(&self) {
        self.is_poisoned.store(true, Ordering::Release);
    }

    /// After a failed write nobody knows what reached the disk, so nothing more is written.
    fn check(&self) -> Result<(), Fault> {
        if self.is_poisoned.load(Ordering::Acquire) {
            return Err(Fault::new("writing to the store", "an earlier write failed"));
        }
        Ok(())
    }
}

impl<B: Base> Read for Front<B> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        {
            let layers = self.inner.layers();
            let newest_first = std::iter::once(&layers.active).chain(layers.sealed.iter().rev());
            for layer in newest_first {
                if let Some(found) = layer.get(table, key) {
                    return Ok(found);
                }
            }
        }
        // What comes meanwhile, and is spilled already, may be seen or not.
        self.inner.base.get(table, key)
    }

    fn scan(&self, table: Table, range: RowRange) -> Rows<'_> {
        self.rows(table, range, false)
    }

    fn scan_back(&self, table: Table, range: RowRange) -> Rows<'_> {
        self.rows(table, range, true)
    }

    fn first(&self, table: Table, range: RowRange) -> Result<Option<Row>, Fault> {
        self.snapshot().first(table, range)
    }
}

impl<B: Base> Engine for Front<B> {
    type Snapshot = FrontSnapshot<B::View>;

    fn snapshot(&self) -> Self::Snapshot {
        // Nothing is sealed meanwhile, so that the base shows no more than these layers have.
        let layers = self.inner.layers();
        let newest_first = std::iter::once(&layers.active).chain(layers.sealed.iter().rev());
        let layers = newest_first.filter(|layer| !layer.is_empty()).map(LayerView::new).collect();
        FrontSnapshot { layers, base: self.inner.base.view() }
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        self.inner.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        crash_point("store.batch.ready");
        let is_full = {
            let layers = self.inner.layers();
            layers.active.write(batch);
            layers.active.bytes() >= self.inner.layer_bytes
        };
        crash_point("store.batch.written");
        if is_full { self.make_room() } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), Fault> {
        self.inner.check()?;
        crash_point("store.flush.begun");
        let count = {
            let mut layers = self.inner.layers_mut();
            layers.seal();
            layers.count
        };
        while *self.inner.spilled.lock().unwrap_or_else(PoisonError::into_inner) < count {
            self.spill()?;
        }
        crash_point("store.flush.durable");
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        // What is in memory is to be on the disk, too.
        let (active, sealed) = self.bytes();
        self.inner.base.disk_bytes() + (active + sealed) as u64
    }

    fn row_count(&self) -> u64 {
        // First: the base may wait for its disk, and nobody is to wait for that.
        let in_base = self.inner.base.row_count();
        let layers = self.inner.layers();
        let in_memory: usize =
            std::iter::once(&layers.active).chain(&layers.sealed).map(|layer| layer.len()).sum();
        in_base + in_memory as u64
    }
}

/// A view of one moment.
pub struct FrontSnapshot<V> {
    /// Newest first.
    layers: Vec<LayerView>,
    base: V,
}

impl<V: View> FrontSnapshot<V> {
    fn rows(&self, table: Table, range: RowRange, is_back: bool) -> Rows<'static> {
        if is_inverted(&range) {
            return Box::new(std::iter::empty());
        }
        let cursor = |view: &LayerView| Cursor::new(view.clone(), table, range.clone(), is_back);
        let layers: Vec<Cursor> = self.layers.iter().map(cursor).filter(|cursor| !cursor.is_over()).collect();
        let base = self.base.rows(table, range.clone(), is_back);
        if layers.is_empty() {
            return base;
        }
        Box::new(Merged { layers, base: base.peekable(), is_back, is_over: false })
    }
}

impl<V: View> Read for FrontSnapshot<V> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.layers.iter().find_map(|layer| layer.get(table, key)) {
            Some(found) => Ok(found),
            None => self.base.get(table, key),
        }
    }

    fn scan(&self, table: Table, range: RowRange) -> Rows<'_> {
        self.rows(table, range, false)
    }

    fn scan_back(&self, table: Table, range: RowRange) -> Rows<'_> {
        self.rows(table, range, true)
    }

    fn first(&self, table: Table, range: RowRange) -> Result<Option<Row>, Fault> {
        if is_inverted(&range) {
            return Ok(None);
        }
        let bounds = (borrowed(&range.0), borrowed(&range.1));
        let mut first: Option<(Bytes, Option<Bytes>)> = None;
        for row in self.layers.iter().filter_map(|layer| layer.first(table, bounds)) {
            // Of a row that several have, the newest counts.
            if first.as_ref().is_none_or(|(key, _)| row.0 < *key) {
                first = Some(row);
            }
        }
        let base = self.base.rows(table, range.clone(), false).next().transpose()?;
        match (first, base) {
            (None, base) => Ok(base),
            (Some((key, _)), Some(base)) if base.0 < key => Ok(Some(base)),
            (Some((key, Some(value))), _) => Ok(Some((key, value))),
            // What comes after a row that is gone has to be looked for.
            (Some((_, None)), _) => self.rows(table, range, false).next().transpose(),
        }
    }
}

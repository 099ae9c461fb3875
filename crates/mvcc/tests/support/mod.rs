//! A small ordered store for tests: everything in memory, and a crash that loses what was not flushed.

#![allow(dead_code)]
#![allow(unreachable_pub)]

use quorate_mvcc::engine::{Batch, Engine, Read, Row, RowRange, Rows, Table};
use quorate_types::{Bytes, Fault};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

type Tables = BTreeMap<Table, BTreeMap<Bytes, Bytes>>;

#[derive(Debug, Default)]
struct Inner {
    tables: Tables,
    durable: Tables,
    /// Batches since the last flush, so that a crash may keep some of them.
    unflushed: Vec<Batch>,
    /// Writes until one fails.
    writes_left: Option<usize>,
}

/// The store.
#[derive(Clone, Debug, Default)]
pub struct TestEngine(Arc<Mutex<Inner>>);

/// One moment of it.
pub struct Frozen(Tables);

fn carry_out(tables: &mut Tables, batch: &Batch) {
    for (table, row, value) in &batch.changes {
        let rows = tables.entry(*table).or_default();
        match value {
            Some(value) => rows.insert(row.clone(), value.clone()),
            None => rows.remove(row),
        };
    }
}

fn rows(tables: &Tables, table: Table, range: RowRange) -> Vec<Row> {
    // What the store on disk and an ordered map refuse must not pass in tests.
    if let (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) =
        (&range.0, &range.1)
    {
        assert!(start <= end, "inverted bounds {range:?}");
    }
    let Some(rows) = tables.get(&table) else { return Vec::new() };
    rows.range(range).map(|(row, value)| (row.clone(), value.clone())).collect()
}

impl TestEngine {
    /// What is left after a power cut that lost all but the first `batches_kept` unflushed batches.
    pub fn crash(&self, batches_kept: usize) -> Self {
        let inner = self.0.lock().unwrap();
        let mut tables = inner.durable.clone();
        inner.unflushed.iter().take(batches_kept).for_each(|batch| carry_out(&mut tables, batch));
        Self(Arc::new(Mutex::new(Inner { durable: tables.clone(), tables, ..Inner::default() })))
    }

    pub fn unflushed(&self) -> usize {
        self.0.lock().unwrap().unflushed.len()
    }

    /// After so many more writes, one fails.
    pub fn fail_after(&self, writes: usize) {
        self.0.lock().unwrap().writes_left = Some(writes);
    }

    /// All rows.
    pub fn dump(&self) -> Vec<(Table, Row)> {
        let inner = self.0.lock().unwrap();
        let all = |table| rows(&inner.tables, table, (Bound::Unbounded, Bound::Unbounded));
        Table::ALL.into_iter().flat_map(|table| all(table).into_iter().map(move |row| (table, row))).collect()
    }

    /// Flips one bit of a value.
    pub fn rot(&self, table: Table, row: &[u8]) {
        let mut inner = self.0.lock().unwrap();
        let value = inner.tables.get_mut(&table).unwrap().get_mut(row).unwrap();
        let mut bytes = value.to_vec();
        bytes[0] ^= 1;
        *value = bytes.into();
    }
}

impl Read for TestEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.lock().unwrap().tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, table: Table, range: RowRange) -> Rows<'_> {
        Box::new(rows(&self.0.lock().unwrap().tables, table, range).into_iter().map(Ok))
    }

    fn scan_back(&self, table: Table, range: RowRange) -> Rows<'_> {
        Box::new(rows(&self.0.lock().unwrap().tables, table, range).into_iter().rev().map(Ok))
    }
}

impl Read for Frozen {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, table: Table, range: RowRange) -> Rows<'_> {
        Box::new(rows(&self.0, table, range).into_iter().map(Ok))
    }

    fn scan_back(&self, table: Table, range: RowRange) -> Rows<'_> {
        Box::new(rows(&self.0, table, range).into_iter().rev().map(Ok))
    }
}

impl Engine for TestEngine {
    type Snapshot = Frozen;

    fn snapshot(&self) -> Frozen {
        Frozen(self.0.lock().unwrap().tables.clone())
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let mut inner = self.0.lock().unwrap();
        match &mut inner.writes_left {
            Some(0) => return Err(Fault::new("writing", "the disk is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        carry_out(&mut inner.tables, &batch);
        inner.unflushed.push(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        let mut inner = self.0.lock().unwrap();
        inner.durable = inner.tables.clone();
        inner.unflushed.clear();
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        let inner = self.0.lock().unwrap();
        let rows = inner.tables.values().flat_map(|rows| rows.iter());
        rows.map(|(row, value)| (row.len() + value.len()) as u64).sum()
    }

    fn row_count(&self) -> u64 {
        self.0.lock().unwrap().tables.values().map(|rows| rows.len() as u64).sum()
    }
}

/// Seeded random numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize].clone()
    }
}

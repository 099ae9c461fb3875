//! An ordered store in memory that forgets what was not flushed when it crashes.

use quorate_mvcc::engine::{Batch, Engine, Read, RowRange, Rows, Table};
use quorate_types::{Bytes, Fault};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Rowset = BTreeMap<Bytes, Bytes>;

/// The store; clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    now: Tables,
    flushed: Tables,
    /// Written since the last flush, in order.
    unflushed: Vec<Batch>,
    writes_until_fault: Option<u64>,
    is_poisoned: bool,
}

#[derive(Clone, Debug, Default)]
struct Tables([Arc<Rowset>; 3]);

impl Tables {
    fn apply(&mut self, batch: &Batch) {
        for (table, key, value) in &batch.changes {
            // Copies only while a snapshot shares the rows.
            let rows = Arc::make_mut(&mut self.0[*table as usize]);
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
    }
}

/// What happens to the value of a row on its way to the disk, or there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// This bit flips, counted round and round.
    Bit(usize),
    /// All of it is zeros: its block was never written.
    Zeroed,
    /// From this byte on, counted round and round, it is zeros.
    Torn(usize),
    /// What was written for the next row stands there.
    Misdirected,
}

/// A view of one moment.
#[derive(Clone, Debug)]
pub struct MemorySnapshot(Tables);

impl MemoryEngine {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held is a failed test already.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine dies: of what was written since the last flush the first `kept` batches survive.
    pub fn crash(&self, kept: usize) {
        let mut inner = self.lock();
        let mut survived = inner.flushed.clone();
        for batch in inner.unflushed.iter().take(kept) {
            survived.apply(batch);
        }
        *inner = Inner { now: survived.clone(), flushed: survived, ..Inner::default() };
    }

    /// Batches that a crash could lose.
    pub fn unflushed(&self) -> usize {
        self.lock().unflushed.len()
    }

    /// Damages the value of a row, for good: the `nth` of the table, counted round and round. Returns whether there is any, and it is another one now.
    pub fn rot(&self, table: Table, nth: usize, damage: Damage) -> bool {
        let mut inner = self.lock();
        let rows = &inner.now.0[table as usize];
        let Some((key, before)) = rows.iter().nth(nth % rows.len().max(1)) else { return false };
        let key = key.clone();
        let next = rows.range::<Bytes, _>((Excluded(&key), Unbounded)).next().or(rows.first_key_value());
        let next = next.map(|(_, value)| value.clone()).unwrap_or_default();
        let spoil = |value: &mut Bytes| {
            let mut bytes = value.to_vec();
            match damage {
                Damage::Bit(bit) => {
                    let bit = bit % (8 * bytes.len());
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                Damage::Zeroed => bytes.fill(0),
                Damage::Torn(at) => {
                    let at = at % bytes.len();
                    bytes[at..].fill(0);
                }
                Damage::Misdirected => bytes = next.to_vec(),
            }
            *value = bytes.into();
        };
        let mut after = before.clone();
        spoil(&mut after);
        if after == *before {
            return false;
        }
        let Inner { now, flushed, unflushed, .. } = &mut *inner;
        for tables in [now, flushed] {
            if let Some(value) = Arc::make_mut(&mut tables.0[table as usize]).get_mut(&key) {
                spoil(value);
            }
        }
        let changes = unflushed.iter_mut().flat_map(|batch| &mut batch.changes);
        for (_, _, value) in changes.filter(|(of, row, _)| *of == table && *row == key) {
            value.iter_mut().for_each(spoil);
        }
        true
    }

    /// After so many more writes and flushes, everything fails.
    pub fn fail_after(&self, writes: u64) {
        self.lock().writes_until_fault = Some(writes);
    }
}

impl Inner {
    fn check(&mut self) -> Result<(), Fault> {
        match &mut self.writes_until_fault {
            Some(0) => self.is_poisoned = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.is_poisoned {
            return Err(Fault::new("writing to the store in memory", "a fault was planted"));
        }
        Ok(())
    }
}

impl Read for MemorySnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.0[table as usize].get(key).cloned())
    }

    fn scan(&self, table: Table, range: RowRange) -> Rows<'_> {
        let rows = &self.0.0[table as usize];
        if is_inverted(&range) {
            return Box::new(std::iter::empty());
        }
        Box::new(rows.range(range).map(|(key, value)| Ok((key.clone(), value.clone()))))
    }

    fn scan_back(&self, table: Table, range: RowRange) -> Rows<'_> {
        let rows = &self.0.0[table as usize];
        if is_inverted(&range) {
            return Box::new(std::iter::empty());
        }
        Box::new(rows.range(range).rev().map(|(key, value)| Ok((key.clone(), value.clone()))))
    }
}

/// Whether nothing can be in a range; an ordered map panics when asked for it.
pub(crate) fn is_inverted((start, end): &RowRange) -> bool {
    use std::ops::Bound::Included;
    match (start, end) {
        (Included(a), Included(b)) => a > b,
        (Included(a), Excluded(b)) | (Excluded(a), Included(b)) | (Excluded(a), Excluded(b)) => a >= b,
        _ => false,
    }
}

impl MemorySnapshot {
    /// As [`Read::scan`] or [`Read::scan_back`], of rows that the iterator itself keeps.
    pub(crate) fn owned(&self, table: Table, range: RowRange, is_back: bool) -> Rows<'static> {
        Box::new(Owned { rows: self.0.0[table as usize].clone(), range: Some(range), is_back })
    }
}

struct Owned {
    rows: Arc<Rowset>,
    range: Option<RowRange>,
    is_back: bool,
}

impl Iterator for Owned {
    type Item = Result<(Bytes, Bytes), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let range = self.range.take()?;
        if is_inverted(&range) {
            return None;
        }
        let mut found = self.rows.range(range.clone());
        let (key, value) = if self.is_back { found.next_back() } else { found.next() }?;
        let row = (key.clone(), value.clone());
        self.range = Some(if self.is_back {
            (range.0, Excluded(row.0.clone()))
        } else {
            (Excluded(row.0.clone()), range.1)
        });
        Some(Ok(row))
    }
}

impl Read for MemoryEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.lock().now.0[table as usize].get(key).cloned())
    }

    fn scan(&self, table: Table, range: RowRange) -> Rows<'_> {
        let rows = self.lock().now.0[table as usize].clone();
        Box::new(Owned { rows, range: Some(range), is_back: false })
    }

    fn scan_back(&self, table: Table, range: RowRange) -> Rows<'_> {
        let rows = self.lock().now.0[table as usize].clone();
        Box::new(Owned { rows, range: Some(range), is_back: true })
    }
}

impl Engine for MemoryEngine {
    type Snapshot = MemorySnapshot;

    fn snapshot(&self) -> MemorySnapshot {
        MemorySnapshot(self.lock().now.clone())
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.check()?;
        inner.now.apply(&batch);
        inner.unflushed.push(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.check()?;
        let written = std::mem::take(&mut inner.unflushed);
        for batch in &written {
            inner.flushed.apply(batch);
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        let inner = self.lock();
        let rows = inner.now.0.iter().flat_map(|rows| rows.iter());
        rows.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    fn row_count(&self) -> u64 {
        self.lock().now.0.iter().map(|rows| rows.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Bound::Included;

    #[test]
    fn a_crash_keeps_whole_batches_and_what_was_flushed() {
        let engine = MemoryEngine::default();
        for round in 0..4u8 {
            let mut batch = Batch::default();
            batch.put(Table::Version, vec![round], vec![1]);
            batch.put(Table::State, vec![0], vec![round]);
            engine.write(batch).unwrap();
            if round == 1 {
                engine.flush().unwrap();
            }
        }
        engine.crash(1);
        assert_eq!(engine.get(Table::State, &[0]).unwrap().unwrap()[..], [2]);
        assert!(engine.get(Table::Version, &[2]).unwrap().is_some());
        assert!(engine.get(Table::Version, &[3]).unwrap().is_none());
        assert_eq!(engine.unflushed(), 0);
    }

    #[test]
    fn what_has_rotted_stays_so_whether_it_was_flushed_or_not() {
        for is_flushed in [false, true] {
            let engine = MemoryEngine::default();
            assert!(!engine.rot(Table::Version, 3, Damage::Bit(3)));
            let mut batch = Batch::default();
            batch.put(Table::Version, vec![1], vec![0, 0]);
            batch.put(Table::Version, vec![2], vec![0, 0]);
            engine.write(batch).unwrap();
            if is_flushed {
                engine.flush().unwrap();
            }
            assert!(engine.rot(Table::Version, 3, Damage::Bit(16 + 9)));
            for is_crashed in [false, true] {
                if is_crashed {
                    engine.crash(1);
                }
                assert_eq!(engine.get(Table::Version, &[1]).unwrap().unwrap()[..], [0, 0]);
                assert_eq!(engine.get(Table::Version, &[2]).unwrap().unwrap()[..], [0, 2]);
            }
        }
    }

    #[test]
    fn a_row_is_zeroed_torn_or_stands_in_anothers_place_and_is_not_called_damaged_when_it_is_as_before() {
        let value_after = |damage: Damage, values: [&'static [u8]; 2]| {
            let engine = MemoryEngine::default();
            let mut batch = Batch::default();
            batch.put(Table::Version, vec![1], values[0]);
            batch.put(Table::Version, vec![2], values[1]);
            engine.write(batch).unwrap();
            let is_damaged = engine.rot(Table::Version, 2, damage);
            let other = engine.get(Table::Version, &[2]).unwrap().unwrap();
            assert_eq!(&other[..], values[1]);
            is_damaged.then(|| engine.get(Table::Version, &[1]).unwrap().unwrap().to_vec())
        };
        assert_eq!(value_after(Damage::Zeroed, [&[7, 8], &[9]]).unwrap(), [0, 0]);
        assert_eq!(value_after(Damage::Torn(4), [&[7, 8, 9], &[9]]).unwrap(), [7, 0, 0]);
        assert_eq!(value_after(Damage::Misdirected, [&[7, 8], &[9]]).unwrap(), [9]);
        assert_eq!(value_after(Damage::Misdirected, [&[9], &[9]]), None);
        assert_eq!(value_after(Damage::Zeroed, [&[0], &[9]]), None);
    }

    #[test]
    fn scans_go_both_ways_and_inverted_ranges_are_empty() {
        let engine = MemoryEngine::default();
        let mut batch = Batch::default();
        for key in 0..5u8 {
            batch.put(Table::Change, vec![key], vec![key]);
        }
        engine.write(batch).unwrap();
        let at = |key: u8| Bytes::from(vec![key]);
        let keys = |rows: Rows<'_>| rows.map(|row| row.unwrap().0[0]).collect::<Vec<_>>();
        let range = (Included(at(1)), Excluded(at(4)));
        assert_eq!(keys(engine.scan(Table::Change, range.clone())), [1, 2, 3]);
        assert_eq!(keys(engine.scan_back(Table::Change, range.clone())), [3, 2, 1]);
        assert_eq!(keys(engine.snapshot().scan(Table::Change, range)), [1, 2, 3]);
        assert!(keys(engine.scan(Table::Change, (Included(at(4)), Excluded(at(1))))).is_empty());
        assert_eq!(keys(engine.scan_back(Table::Change, (Unbounded, Unbounded))).len(), 5);
    }
}

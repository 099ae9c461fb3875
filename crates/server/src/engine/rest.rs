//! What the store does when little is written: rows that are worth a file leave memory, so that they take none and a start has nothing to replay. And where many rows were removed, everything is
//! merged, so that their space comes back.

use super::DiskEngine;
use quorate_types::{Fault, crash_point};

/// So little is written between two looks,
const QUIET_BYTES: u64 = 16 << 10;
/// so many times in a row.
const QUIET_LOOKS: u32 = 20;
/// Rows in memory that are worth a file: so many bytes,
const WORTH_BYTES: usize = 4 << 20;
/// and such a part of what is in files already, all of which may have to be merged with four times as much.
const WORTH_PART: u64 = 64;

/// Whoever looks whether a store is at rest, every so often.
#[derive(Default)]
pub struct Rest {
    written: u64,
    looks: u32,
    /// How many rows were removed when everything was merged last.
    removed: u64,
}

impl Rest {
    /// Looks, and does what is to be done.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn look(&mut self, engine: &DiskEngine) -> Result<(), Fault> {
        let written = engine.written();
        let is_quiet = written - self.written <= QUIET_BYTES;
        self.written = written;
        self.looks = if is_quiet { self.looks + 1 } else { 0 };
        if self.looks < QUIET_LOOKS {
            return Ok(());
        }
        self.looks = 0;
        let (bytes, _) = engine.front.bytes();
        if bytes >= WORTH_BYTES && bytes as u64 >= engine.table_bytes() / WORTH_PART {
            engine.front.seal();
            while engine.front.spill()? {}
            crash_point("store.rest.spilled");
        }
        let removed = engine.removed();
        if removed > self.removed && engine.tree().is_worth_merging() {
            self.removed = removed;
            engine.tree().merge_everything_soon();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_mvcc::engine::{Batch, Engine, Read, Table};
    use std::ops::Bound::Unbounded;
    use std::time::{Duration, Instant};

    fn put(engine: &DiskEngine, number: u32, bytes: usize) {
        let mut batch = Batch::default();
        batch.put(Table::Version, number.to_be_bytes().to_vec(), vec![7; bytes]);
        batch.put(Table::State, vec![1], number.to_be_bytes().to_vec());
        engine.write(batch).unwrap();
    }

    #[test]
    fn a_store_at_rest_keeps_neither_rows_in_memory_nor_files_that_were_merged() {
        let dir = tempfile::tempdir().unwrap();
        let engine = DiskEngine::open(dir.path(), 1 << 20).unwrap();
        let count = u32::try_from(WORTH_BYTES / 1_000).unwrap();
        (0..count / 2).for_each(|number| put(&engine, number, 1_000));
        let mut rest = Rest::default();
        (0..10 * QUIET_LOOKS).for_each(|_| rest.look(&engine).unwrap());
        assert!(engine.front.bytes().0 > 0, "so little is not worth a file");
        for _ in 0..9 {
            (0..count).for_each(|number| put(&engine, number, 1_000));
            (0..2 * QUIET_LOOKS).for_each(|_| rest.look(&engine).unwrap());
            assert_eq!(engine.front.bytes(), (0, 0));
        }
        // Nine times the same rows; of which one is needed.
        let begun = Instant::now();
        let files = || std::fs::read_dir(dir.path().join("tree/tables")).unwrap().count();
        while files() > 4 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} files are left", files());
            std::thread::yield_now();
        }
        let found = engine.get(Table::Version, &3u32.to_be_bytes()).unwrap().unwrap();
        assert_eq!(found[..], vec![7; 1_000]);
    }

    #[test]
    fn the_space_of_many_removed_rows_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let engine = DiskEngine::open(dir.path(), 1 << 20).unwrap();
        let count = u32::try_from(3 * WORTH_BYTES / 1_000).unwrap();
        (0..count).for_each(|number| put(&engine, number, 1_000));
        engine.flush().unwrap();
        let before = engine.table_bytes();
        for numbers in (0..count - 10).collect::<Vec<_>>().chunks(100) {
            let mut batch = Batch::default();
            numbers.iter().for_each(|number| batch.delete(Table::Version, number.to_be_bytes().to_vec()));
            engine.write(batch).unwrap();
        }
        engine.flush().unwrap();
        let mut rest = Rest::default();
        let begun = Instant::now();
        while engine.table_bytes() > before / 10 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} of {before} bytes", engine.table_bytes());
            rest.look(&engine).unwrap();
            std::thread::yield_now();
        }
        assert_eq!(engine.scan(Table::Version, (Unbounded, Unbounded)).count(), 10);
    }

    #[test]
    fn a_store_that_is_written_to_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let engine = DiskEngine::open(dir.path(), 1 << 20).unwrap();
        let mut rest = Rest::default();
        for number in 0..(WORTH_BYTES as u64 / (2 * QUIET_BYTES)) as u32 + 60 {
            put(&engine, number, 2 * QUIET_BYTES as usize);
            rest.look(&engine).unwrap();
        }
        assert_eq!(engine.table_bytes(), 0);
        assert!(engine.front.bytes().0 > WORTH_BYTES);
    }
}

//! What the store does when little is written: it lets go of memory and files that it needs no more.
//!
//! fjall writes the rows of a table that are in memory to a file when they have become many. Then, and when it merges files, it keeps what took part (the memory and the files) until rows of
//! any table next leave memory. While much is written that is soon. A store at rest would keep tens of MiB in memory, the last merge twice on disk, and a journal that whoever starts next reads row by
//! row. So when it has been quiet for a while, rows leave memory if they are worth a file, and when that is done and nothing is merged any more, what is left over goes.

use super::FjallEngine;
use fjall::{AbstractTree, Keyspace};
use quorate_mvcc::engine::Table;
use quorate_types::{Fault, crash_point};

/// So little is written between two looks,
const QUIET_BYTES: u64 = 16 << 10;
/// so many times in a row.
const QUIET_LOOKS: u32 = 20;
/// Rows in memory that are worth a file: so many bytes,
const WORTH_BYTES: u64 = 16 << 20;
/// and such a part of what is in files already, all of which may have to be merged with four times as much.
const WORTH_PART: u64 = 16;
/// No row of the store has a key this short.
const NO_ROW: [u8; 1] = [0];

/// Whoever looks whether a store is at rest, every so often.
#[derive(Default)]
pub struct Rest {
    written: u64,
    looks: u32,
}

impl Rest {
    /// Looks, and does what is to be done. Nothing that takes long: others write and merge.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn look(&mut self, engine: &FjallEngine) -> Result<(), Fault> {
        let written = engine.written();
        let is_quiet = written - self.written <= QUIET_BYTES && !engine.is_at_work();
        self.written = written;
        self.looks = if is_quiet { self.looks + 1 } else { 0 };
        if self.looks < QUIET_LOOKS {
            return Ok(());
        }
        self.looks = 0;
        engine.rest()
    }
}

impl FjallEngine {
    /// Whether rows are being written to files, or files merged.
    fn is_at_work(&self) -> bool {
        self.inner.database.outstanding_flushes() > 0 || self.inner.database.active_compactions() > 0
    }

    /// The next step on the way to rest, if there is one.
    fn rest(&self) -> Result<(), Fault> {
        let large = || [Table::Version, Table::Change].map(|table| self.inner.table(table));
        if large().into_iter().any(is_worth_a_file) {
            self.inner.guarded("writing tables at rest", || {
                large().into_iter().try_for_each(|table| table.rotate_memtable().map(drop))
            })?;
            crash_point("store.rest.written");
        } else if large().into_iter().any(|table| table.tree.version_free_list_len() > 0) {
            self.inner.guarded("letting go of merged tables", || {
                let state = self.inner.table(Table::State);
                // What is left over goes when something newer than it is written and rows of a table leave memory.
                state.remove(NO_ROW)?;
                state.rotate_memtable().map(drop)
            })?;
            crash_point("store.rest.freed");
        }
        Ok(())
    }
}

fn is_worth_a_file(table: &Keyspace) -> bool {
    table.tree.active_memtable().size() >= WORTH_BYTES.max(table.disk_space() / WORTH_PART)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_mvcc::engine::{Batch, Engine, Read};
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// Looks while fjall's threads do their part, until it is so.
    fn until(engine: &FjallEngine, is_so: impl Fn() -> bool) {
        let (mut rest, begun) = (Rest::default(), Instant::now());
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the store does not come to rest");
            rest.look(engine).unwrap();
            std::thread::yield_now();
        }
    }

    fn files(tree: &Path) -> usize {
        std::fs::read_dir(tree.join("tables")).unwrap().count()
    }

    #[test]
    fn a_store_at_rest_keeps_neither_rows_in_memory_nor_files_that_were_merged() {
        let dir = tempfile::tempdir().unwrap();
        let engine = FjallEngine::open(dir.path(), 1 << 20).unwrap();
        let count = u32::try_from(WORTH_BYTES / 1_000).unwrap();
        let put = |number: u32| {
            let mut batch = Batch::default();
            batch.put(Table::Version, number.to_be_bytes().to_vec(), vec![7; 1_000]);
            batch.put(Table::State, vec![1], number.to_be_bytes().to_vec());
            engine.write(batch).unwrap();
        };
        let version = engine.inner.table(Table::Version);
        (0..count / 2).for_each(put);
        let mut rest = Rest::default();
        (0..10 * QUIET_LOOKS).for_each(|_| rest.look(&engine).unwrap());
        assert!(version.tree.active_memtable().size() > 0, "so little is not worth a file");
        for _ in 0..5 {
            (0..count + count / 50).for_each(put);
            let is_at_rest = || {
                version.tree.active_memtable().is_empty()
                    && !engine.is_at_work()
                    && version.tree.version_free_list_len() == 0
            };
            until(&engine, is_at_rest);
        }
        // Of the five parts that left memory some are merged; their files go.
        until(&engine, || version.table_count() < 5 && files(version.path()) == version.table_count());
        let found = engine.get(Table::Version, &3u32.to_be_bytes()).unwrap().unwrap();
        assert_eq!(found[..], vec![7; 1_000]);
        assert_eq!(engine.get(Table::State, &NO_ROW).unwrap(), None);
    }

    #[test]
    fn a_store_that_is_written_to_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let engine = FjallEngine::open(dir.path(), 1 << 20).unwrap();
        let mut rest = Rest::default();
        let version = engine.inner.table(Table::Version);
        for number in 0..(WORTH_BYTES / (2 * QUIET_BYTES)) as u32 + 20 {
            let mut batch = Batch::default();
            batch.put(Table::Version, number.to_be_bytes().to_vec(), vec![7; 2 * QUIET_BYTES as usize]);
            engine.write(batch).unwrap();
            rest.look(&engine).unwrap();
        }
        assert_eq!(version.table_count(), 0);
        assert!(version.tree.active_memtable().size() > WORTH_BYTES);
    }
}
